<?php

namespace App\Http\Controllers;

use App\Events\OrderStatusChanged;
use App\Models\Order;
use Illuminate\Http\RedirectResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\DB;
use Illuminate\Support\Facades\Gate;
use Illuminate\Validation\Rule;
use Illuminate\Validation\ValidationException;
use Inertia\Inertia;
use Inertia\Response;

class OrderController extends Controller
{
    /** Where an order may go from each status. */
    private const NEXT = [
        'created' => ['payment', 'cancelled'],
        'payment' => ['paid', 'cancelled'],
        'paid' => ['released', 'cancelled'],
        'released' => [],
        'cancelled' => [],
    ];

    /** The cashier's page: everything that is not finished. */
    public function pos(): Response
    {
        return Inertia::render('cashier/pos', [
            // A function, so that a reload of `orders` alone runs this query and no other.
            'orders' => fn () => Order::query()->whereIn('status', ['created', 'payment', 'paid'])->orderBy('id')->get(),
        ]);
    }

    /** The releasing desk: what is paid. */
    public function release(): Response
    {
        return Inertia::render('releasing/orders', [
            'orders' => fn () => Order::query()->where('status', 'paid')->orderBy('id')->get(),
        ]);
    }

    public function store(Request $request): RedirectResponse
    {
        Gate::authorize('create', Order::class);
        $order = Order::query()->create([
            ...$request->validate(['customer' => ['required', 'string', 'max:80']]),
            'status' => 'created',
        ]);

        broadcast(new OrderStatusChanged($order))->toOthers();

        return back();
    }

    public function updateStatus(Request $request, Order $order): RedirectResponse
    {
        $status = $request->validate(['status' => ['required', Rule::in(array_keys(self::NEXT))]])['status'];
        Gate::authorize('moveTo', [$order, $status]);

        $order = DB::transaction(function () use ($order, $status) {
            // Two tills may press at the same moment: one of them waits here, and sees what the other did.
            $order = Order::query()->lockForUpdate()->findOrFail($order->id);
            if (! in_array($status, self::NEXT[$order->status], true)) {
                throw ValidationException::withMessages(['status' => "Order {$order->id} is {$order->status} already."]);
            }
            $order->update(['status' => $status]);

            return $order;
        });

        // The header X-Socket-ID, which resources/js/echo.ts adds, says who is not an "other".
        broadcast(new OrderStatusChanged($order))->toOthers();

        return back();
    }
}
