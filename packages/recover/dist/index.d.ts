/** Where to go on in a channel: a position that the server gave out, or before the newest so many events. */
export type From = string | {
    last: number;
};
/** What a channel emits as `pusher:recovery` when it is subscribed again. */
export interface Recovery {
    /** Whether the channel has everything that was published since. */
    recovered: boolean;
    /** How many events were given back, just before this. */
    count: number;
}
export interface Options {
    /** For channels that are not subscribed yet: where the page's data stands. */
    from?: Record<string, From>;
    /** Something of this channel is missing, and will not come: fetch its state anew. */
    onGap?: (channel: string) => void;
    /** This channel has everything, after so many events were given back. */
    onRecovered?: (channel: string, count: number) => void;
}
/** The part of pusher-js that is used here. */
export interface Client {
    connection: {
        state: string;
        socket_id: string;
        bind_global(callback: (event: string, data: any) => void): unknown;
    };
    channel(name: string): Channel | undefined;
    allChannels(): Channel[];
    send_event(name: string, data: unknown): unknown;
}
export interface Channel {
    name: string;
    emit(event: string, data?: unknown): unknown;
}
/** Makes a client recover. To be called once for it, before or after it connects; gives it back. */
export declare function recover<C extends Client>(client: C, options?: Options): C;
