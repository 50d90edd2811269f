// Revenue by hour, drawn at the size the page gives it, so that text keeps its size on a phone.

import { useEffect, useRef, useState } from 'react';

import { money, time } from '../lib/format';
import { ceiling } from '../lib/scale';
import type { Hour } from '../lib/types';

const HEIGHT = 220;
const MARGIN = { top: 16, right: 4, bottom: 26, left: 52 };

export function HourChart({ hours }: { hours: Hour[] }) {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  const [chosen, setChosen] = useState<number | null>(null);
  useEffect(() => {
    if (box.current === null) return;
    const observer = new ResizeObserver(([entry]) => setWidth(entry?.contentRect.width ?? 0));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);

  const top = ceiling(Math.max(0, ...hours.map(({ cents }) => cents)));
  const [plotWidth, plotHeight] = [Math.max(0, width - MARGIN.left - MARGIN.right), HEIGHT - MARGIN.top - MARGIN.bottom];
  const slot = hours.length === 0 ? 0 : plotWidth / hours.length;
  const bar = Math.min(44, slot * 0.62);
  const y = (cents: number) => MARGIN.top + plotHeight * (1 - cents / top);
  // A label for each hour where there is room, else for every second, third …
  const every = Math.max(1, Math.ceil(44 / Math.max(1, slot)));
  const shown = chosen === null ? undefined : hours[chosen];
  return (
    <figure className="chart">
      <figcaption>
        <span>Revenue by hour</span>
        <span className="muted" aria-live="polite">
          {shown !== undefined && `${time(shown.hour)}: ${money(shown.cents)}, ${shown.count} sold`}
        </span>
      </figcaption>
      <div ref={box}>
        <svg width={width} height={HEIGHT} role="img" aria-label="Revenue by hour, as in the table that follows" data-testid="chart">
          {[0, 0.5, 1].map((part) => (
            <g key={part}>
              <line className="grid" x1={MARGIN.left} x2={width} y1={y(top * part)} y2={y(top * part)} />
              <text className="tick" x={MARGIN.left - 8} y={y(top * part) + 4} textAnchor="end">{axis(top * part)}</text>
            </g>
          ))}
          {hours.map(({ hour, cents }, index) => {
            const x = MARGIN.left + slot * index + (slot - bar) / 2;
            return (
              <g key={hour} onPointerEnter={() => setChosen(index)} onPointerLeave={() => setChosen(null)}>
                <rect className="touch" x={MARGIN.left + slot * index} y={MARGIN.top} width={slot} height={plotHeight} />
                <rect className="bar-fill" x={x} y={y(cents)} width={bar} height={MARGIN.top + plotHeight - y(cents)} rx={Math.min(4, bar / 2)} data-now={index === hours.length - 1 || undefined} />
                {(hours.length - 1 - index) % every === 0 && (
                  <text className="tick" x={MARGIN.left + slot * (index + 0.5)} y={HEIGHT - 8} textAnchor="middle">{time(hour)}</text>
                )}
              </g>
            );
          })}
        </svg>
      </div>
      <table className="hidden">
        <caption>Revenue by hour</caption>
        <thead><tr><th scope="col">Hour</th><th scope="col">Revenue</th><th scope="col">Sales</th></tr></thead>
        <tbody>
          {hours.map(({ hour, cents, count }) => (
            <tr key={hour}><th scope="row">{time(hour)}</th><td>{money(cents)}</td><td>{count}</td></tr>
          ))}
        </tbody>
      </table>
    </figure>
  );
}

const axis = (cents: number) => `$${(cents / 100).toLocaleString('en-US', { maximumFractionDigits: 2 })}`;
