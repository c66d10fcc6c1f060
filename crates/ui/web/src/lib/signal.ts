// State that several parts of the page share: a value, and who hears of changes.

import { useEffect, useState } from "preact/hooks";

export class Shared<T> {
  private listeners = new Set<() => void>();

  constructor(private current: T) {}

  get value(): T {
    return this.current;
  }

  set(next: T): void {
    if (next === this.current) return;
    this.current = next;
    for (const listener of [...this.listeners]) listener();
  }

  subscribe(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}

/** The value, and a new rendering whenever it changes. */
export function useShared<T>(shared: Shared<T>): T {
  const [, render] = useState({});
  useEffect(() => {
    render({});
    return shared.subscribe(() => render({}));
  }, [shared]);
  return shared.value;
}
