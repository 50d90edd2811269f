// Requests to the back end. Everything the pages show comes through here; broadcasts only say when to ask.

import { socketId } from './echo';
import type { Page } from './synced';
import type {
  Comment, DashboardFigures, DemoUser, Live, Order, OrderStatus, Product, Registration, Session, User,
} from './types';

/** An answer other than 2xx, with the text the back end gave for people to read; status 0 when there was no answer. */
export class ApiError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** Dispatched on `window` when the session has ended behind the page's back. */
export const SIGNED_OUT = 'pos:signed-out';

async function request<T>(method: string, path: string, body?: unknown): Promise<T> {
  const headers: Record<string, string> = { Accept: 'application/json' };
  if (body !== undefined) headers['Content-Type'] = 'application/json';
  // Leaves this window out of the event that the change causes: it has the answer already.
  const socket = method === 'GET' ? undefined : socketId();
  if (socket !== undefined) headers['X-Socket-ID'] = socket;
  let response: Response;
  try {
    response = await fetch(path, { method, headers, body: body === undefined ? null : JSON.stringify(body) });
  } catch {
    throw new ApiError(0, 'The shop’s server does not answer. Nothing was changed.');
  }
  if (response.status === 204) return undefined as T;
  const answer: unknown = await response.json().catch(() => null);
  if (response.ok) return answer as T;
  if (response.status === 401 && path !== '/api/session') window.dispatchEvent(new Event(SIGNED_OUT));
  throw new ApiError(response.status, errorText(answer) ?? `The shop’s server answered ${response.status}.`);
}

function errorText(answer: unknown): string | undefined {
  if (typeof answer !== 'object' || answer === null || !('error' in answer)) return undefined;
  return typeof answer.error === 'string' ? answer.error : undefined;
}

const get = <T>(path: string) => request<T>('GET', path);
const post = <T>(path: string, body: unknown = {}) => request<T>('POST', path, body);

/** Undefined in place of a 404. */
const unlessGone = <T>(answer: Promise<T>): Promise<T | undefined> =>
  answer.catch((error: unknown) => {
    if (error instanceof ApiError && error.status === 404) return undefined;
    throw error;
  });

interface OrderPage { orders: Order[]; revision: number; more: boolean }
interface RegistrationPage { registrations: Registration[]; revision: number; more: boolean }

const orderPage = ({ orders, ...rest }: OrderPage): Page<Order> => ({ records: orders, ...rest });
const registrationPage = ({ registrations, ...rest }: RegistrationPage): Page<Registration> => ({ records: registrations, ...rest });

export const api = {
  session: () => get<Session>('/api/session'),
  signIn: (username: string, password: string) => post<{ user: User }>('/api/session', { username, password }),
  signOut: () => request<undefined>('DELETE', '/api/session'),
  demo: async () => (await get<{ users: DemoUser[] }>('/api/demo')).users,

  products: async () => (await get<{ products: Product[] }>('/api/products')).products,

  openOrders: async () => orderPage(await get('/api/orders?status=created,payment,paid')),
  ordersAfter: async (revision: number) => orderPage(await get(`/api/orders?after=${revision}`)),
  order: async (id: number) => (await unlessGone(get<{ order: Order }>(`/api/orders/${id}`)))?.order,
  createOrder: (customer: string, items: { product_id: number; quantity: number }[]) =>
    post<{ order: Order; live: boolean }>('/api/orders', { customer, items }),
  setOrderStatus: (id: number, status: OrderStatus) =>
    post<{ order: Order; live: boolean }>(`/api/orders/${id}/status`, { status }),

  comments: async (order: number) => (await get<{ comments: Comment[] }>(`/api/orders/${order}/comments`)).comments,
  comment: (order: number, body: string) =>
    post<{ comment: Comment; live: boolean }>(`/api/orders/${order}/comments`, { body }),

  openRegistrations: async () => registrationPage(await get('/api/registrations?status=created')),
  registrationsAfter: async (revision: number) => registrationPage(await get(`/api/registrations?after=${revision}`)),
  createRegistration: (name: string, email: string) =>
    post<{ registration: Registration; live: boolean }>('/api/registrations', email === '' ? { name } : { name, email }),
  releaseRegistration: (id: number) =>
    post<{ registration: Registration; live: boolean }>(`/api/registrations/${id}/release`),

  dashboard: (since: Date) => get<DashboardFigures>(`/api/dashboard?since=${encodeURIComponent(since.toISOString())}`),
  live: () => get<Live>('/api/live'),
};
