// The pages, who may see them, and what their links are called.

import type { ComponentType } from 'react';

import type { IconName } from '../components/Icon';
import type { Role } from '../lib/types';
import { CashierPos } from '../pages/CashierPos';
import { CashierRegistrations } from '../pages/CashierRegistrations';
import { Dashboard } from '../pages/Dashboard';
import { ReleasingOrders } from '../pages/ReleasingOrders';
import { ReleasingRegistrations } from '../pages/ReleasingRegistrations';

export interface Page {
  path: string;
  label: string;
  icon: IconName;
  roles: Role[];
  component: ComponentType;
}

export const PAGES: Page[] = [
  { path: '/dashboard', label: 'Dashboard', icon: 'chart', roles: ['manager'], component: Dashboard },
  { path: '/cashier/pos', label: 'Till', icon: 'till', roles: ['cashier', 'manager'], component: CashierPos },
  { path: '/cashier/registrations', label: 'Registrations', icon: 'registration', roles: ['cashier', 'manager'], component: CashierRegistrations },
  { path: '/releasing/orders', label: 'Release orders', icon: 'box', roles: ['releasing', 'manager'], component: ReleasingOrders },
  { path: '/releasing/registrations', label: 'Release registrations', icon: 'badge', roles: ['releasing', 'manager'], component: ReleasingRegistrations },
];

export const pagesOf = (role: Role): Page[] => PAGES.filter(({ roles }) => roles.includes(role));

const HOME: Record<Role, string> = { cashier: '/cashier/pos', releasing: '/releasing/orders', manager: '/dashboard' };

export const homeOf = (role: Role): string => HOME[role];
