/** A person's initials on a colour of their own. Decoration: the name stands beside it or in a label. */
export function Avatar({ name }: { name: string }) {
  const initials = name.split(/\s+/).map((word) => word[0] ?? '').join('').slice(0, 2).toUpperCase();
  // Multiples of the golden angle are far apart, however alike two names are.
  const hue = Math.round([...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 997, 7) * 137.5) % 360;
  return (
    <span className="avatar" style={{ '--hue': hue }} aria-hidden="true">
      {initials}
    </span>
  );
}
