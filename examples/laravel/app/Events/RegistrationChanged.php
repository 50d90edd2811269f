<?php

namespace App\Events;

use App\Models\Registration;
use Illuminate\Broadcasting\Channel;
use Illuminate\Broadcasting\InteractsWithSockets;
use Illuminate\Contracts\Broadcasting\ShouldBroadcast;
use Illuminate\Contracts\Broadcasting\ShouldRescue;
use Illuminate\Contracts\Events\ShouldDispatchAfterCommit;

/**
 * A registration was created or released: `registration.created` or `registration.released`, by its status.
 *
 * What OrderStatusChanged says of itself goes for this, too.
 */
final class RegistrationChanged implements ShouldBroadcast, ShouldDispatchAfterCommit, ShouldRescue
{
    use InteractsWithSockets;

    public readonly int $id;

    public readonly string $status;

    public function __construct(Registration $registration)
    {
        $this->id = $registration->id;
        $this->status = $registration->status;
    }

    public function broadcastOn(): Channel
    {
        return new Channel('registrations');
    }

    public function broadcastAs(): string
    {
        return "registration.{$this->status}";
    }

    /** @return array{id: int, status: string} */
    public function broadcastWith(): array
    {
        return ['id' => $this->id, 'status' => $this->status];
    }
}
