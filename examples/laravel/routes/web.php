<?php

// Add these lines to the routes/web.php of your application.

use App\Http\Controllers\OrderController;
use App\Http\Controllers\RegistrationController;
use Illuminate\Support\Facades\Route;

Route::middleware('auth')->group(function () {
    Route::get('/cashier/pos', [OrderController::class, 'pos']);
    Route::get('/releasing/orders', [OrderController::class, 'release']);
    Route::post('/orders', [OrderController::class, 'store']);
    Route::patch('/orders/{order}/status', [OrderController::class, 'updateStatus']);

    Route::get('/cashier/registrations', [RegistrationController::class, 'cashier']);
    Route::get('/releasing/registrations', [RegistrationController::class, 'releasing']);
    Route::post('/registrations', [RegistrationController::class, 'store']);
    Route::patch('/registrations/{registration}/release', [RegistrationController::class, 'release']);
});
