<?php

namespace App\Http\Controllers;

use App\Events\RegistrationChanged;
use App\Models\Registration;
use Illuminate\Http\RedirectResponse;
use Illuminate\Http\Request;
use Illuminate\Support\Facades\Gate;
use Inertia\Inertia;
use Inertia\Response;

class RegistrationController extends Controller
{
    public function cashier(): Response
    {
        return $this->page('cashier/registrations');
    }

    public function releasing(): Response
    {
        return $this->page('releasing/registrations');
    }

    public function store(Request $request): RedirectResponse
    {
        Gate::authorize('create', Registration::class);
        $registration = Registration::query()->create([
            ...$request->validate([
                'name' => ['required', 'string', 'max:80'],
                'email' => ['nullable', 'email', 'max:120'],
            ]),
            'status' => 'created',
        ]);

        broadcast(new RegistrationChanged($registration))->toOthers();

        return back();
    }

    public function release(Registration $registration): RedirectResponse
    {
        Gate::authorize('release', $registration);
        // Of two who press at the same moment, one changes the row, and one event is sent.
        $released = Registration::query()
            ->whereKey($registration->id)->where('status', 'created')->update(['status' => 'released']);
        if ($released === 1) {
            broadcast(new RegistrationChanged($registration->refresh()))->toOthers();
        }

        return back();
    }

    private function page(string $component): Response
    {
        return Inertia::render($component, [
            'registrations' => fn () => Registration::query()->where('status', 'created')->orderBy('id')->get(),
        ]);
    }
}
