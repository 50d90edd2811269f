<?php

use App\Models\Order;
use App\Models\User;
use Illuminate\Support\Facades\Broadcast;

// `orders` and `registrations` are public and need no line here: they carry ids and statuses, and the data has its own check.

// presence-staff: who is online. What is returned is what the others see of a person; Laravel adds the id.
Broadcast::channel('staff', fn (User $user) => ['name' => $user->name, 'role' => $user->role]);

// Laravel takes the prefix off, so this line is asked for private-orders.7 (comments, typing) and for presence-orders.7 (who looks
// at it). The first wants anything but false, the second what the others see.
Broadcast::channel('orders.{order}', fn (User $user, Order $order) => $user->can('view', $order)
    ? ['name' => $user->name, 'role' => $user->role]
    : false);

// private-dashboard
Broadcast::channel('dashboard', fn (User $user) => $user->role === 'manager');
