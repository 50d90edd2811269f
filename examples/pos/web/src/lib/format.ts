// How amounts and times are written.

import type { OrderStatus, Role } from './types';

const currency = new Intl.NumberFormat('en-US', { style: 'currency', currency: 'USD' });
const clock = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });

export const money = (cents: number): string => currency.format(cents / 100);

export const time = (iso: string): string => clock.format(new Date(iso));

/** How long ago, in a word or two: "now", "4 min", "2 h". */
export function ago(iso: string, now: number): string {
  const minutes = Math.floor((now - Date.parse(iso)) / 60_000);
  if (minutes < 1) return 'now';
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours} h` : `${Math.floor(hours / 24)} d`;
}

export const STATUS_LABEL: Record<OrderStatus, string> = {
  created: 'Created',
  payment: 'Payment',
  paid: 'For release',
  released: 'Released',
  cancelled: 'Cancelled',
};

export const ROLE_LABEL: Record<Role, string> = { cashier: 'Cashier', releasing: 'Releasing', manager: 'Manager' };

/** "3 orders", "1 order". */
export const count = (number: number, one: string, many = `${one}s`): string => `${number} ${number === 1 ? one : many}`;
