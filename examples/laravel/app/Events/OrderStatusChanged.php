<?php

namespace App\Events;

use App\Models\Order;
use Illuminate\Broadcasting\Channel;
use Illuminate\Broadcasting\InteractsWithSockets;
use Illuminate\Contracts\Broadcasting\ShouldBroadcast;
use Illuminate\Contracts\Broadcasting\ShouldRescue;
use Illuminate\Contracts\Events\ShouldDispatchAfterCommit;

/**
 * An order was created, or has another status now.
 *
 * The channel is public, so it carries an id and a status alone: whoever may see the order asks for it. It is queued, sent only once
 * the change is committed, and a queue that is down fails no sale.
 */
final class OrderStatusChanged implements ShouldBroadcast, ShouldDispatchAfterCommit, ShouldRescue
{
    use InteractsWithSockets;

    /** Copied, not the model: the queue would read it again, and of two quick changes both would tell the second. */
    public readonly int $id;

    public readonly string $status;

    public function __construct(Order $order)
    {
        $this->id = $order->id;
        $this->status = $order->status;
    }

    public function broadcastOn(): Channel
    {
        return new Channel('orders');
    }

    /** Echo listens to `.order.status.changed`, with a dot in front: without it, it would put App\Events before the name. */
    public function broadcastAs(): string
    {
        return 'order.status.changed';
    }

    /** @return array{id: int, status: string} */
    public function broadcastWith(): array
    {
        return ['id' => $this->id, 'status' => $this->status];
    }
}
