/** A round number at or above `value`, so that the grid lines read well. */
export function ceiling(value: number): number {
  if (value <= 0) return 1000;
  const magnitude = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((step) => step * magnitude).find((step) => step >= value) ?? value;
}
