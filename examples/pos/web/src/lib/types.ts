// What the back end sends; examples/pos/API.md describes each.

export type Role = 'cashier' | 'releasing' | 'manager';

export interface User {
  id: number;
  name: string;
  role: Role;
}

/** The options of Echo's `pusher` broadcaster, as the back end read them from its environment. */
export interface RealtimeOptions {
  key: string;
  cluster: string;
  forceTLS: boolean;
  wsHost?: string;
  wsPort?: number;
  wssPort?: number;
  wsPath?: string;
  httpHost?: string;
  httpPort?: number;
  httpsPort?: number;
  httpPath?: string;
  enabledTransports?: ('ws' | 'wss' | 'xhr_streaming' | 'xhr_polling')[];
}

export interface Session {
  user: User;
  realtime: RealtimeOptions;
}

export interface Product {
  id: number;
  name: string;
  price_cents: number;
  stock: number;
}

export type OrderStatus = 'created' | 'payment' | 'paid' | 'released' | 'cancelled';

export interface OrderItem {
  product_id: number;
  name: string;
  quantity: number;
  price_cents: number;
}

export interface Order {
  id: number;
  number: number;
  customer: string;
  status: OrderStatus;
  total_cents: number;
  items: OrderItem[];
  created_at: string;
  updated_at: string;
  created_by: string;
  revision: number;
}

export interface Comment {
  id: number;
  order_id: number;
  author: string;
  body: string;
  created_at: string;
}

export interface Registration {
  id: number;
  name: string;
  email: string | null;
  status: 'created' | 'released';
  created_at: string;
  revision: number;
}

export interface Hour {
  hour: string;
  cents: number;
  count: number;
}

export interface DashboardFigures {
  orders_by_status: Record<OrderStatus, number>;
  sales_count: number;
  revenue_cents: number;
  revenue_by_hour: Hour[];
  stock: { product_id: number; name: string; stock: number }[];
  not_live: number;
}

export interface Live {
  live: boolean;
  waiting: number;
}

export interface DemoUser {
  username: string;
  name: string;
  role: Role;
  password: string;
}
