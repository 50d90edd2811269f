// What a Fanfare server gave back to this window after its connection was lost. Each channel is told of by itself, within moments; a
// person wants to hear of it once. Other servers tell nothing.

export interface Return {
  /** Events that were missed and came after all, on all channels. */
  count: number;
  /** Something is missing, so it was asked for. */
  gap: boolean;
}

/** How long after the last channel's answer all of them are there. */
const SETTLED_MS = 300;

export class Returns {
  #current: Return | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #listeners = new Set<(result: Return) => void>();

  /** Calls `listener` once after each return; gives back what stops that. */
  subscribe(listener: (result: Return) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** A channel has everything, after so many events. */
  recovered(count: number): void {
    this.#add(count, false);
  }

  /** A channel has not. */
  gap(): void {
    this.#add(0, true);
  }

  #add(count: number, gap: boolean): void {
    const before = this.#current ?? { count: 0, gap: false };
    this.#current = { count: before.count + count, gap: before.gap || gap };
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const result = this.#current;
      this.#current = undefined;
      if (result !== undefined) for (const listener of this.#listeners) listener(result);
    }, SETTLED_MS);
  }
}
