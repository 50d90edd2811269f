// Line icons on a 24 by 24 grid, drawn for this application. They are decoration: what they stand beside names the thing.

const PATHS = {
  till: 'M5 10V5h9v5M4 10h16l1 6v4H3v-4zM8 14h.01M12 14h.01M16 14h.01M14 7h4v3',
  registration: 'M10 11a3.500 3.500 0 1 0 0-7 3.500 3.500 0 0 0 0 7zM3.500 20c0-3.500 2.900-6 6.500-6s6.500 2.500 6.500 6M18.500 8v6M15.500 11h6',
  box: 'M4 8l8-4 8 4v8.500l-8 4-8-4zM4 8l8 4 8-4M12 12v8.500M8 6l8 4',
  badge: 'M12 3l2.500 1.900 3.100.100 1 3 2.400 2-.900 3 .900 3-2.400 2-1 3-3.100.100L12 23l-2.500-1.900-3.100-.100-1-3L3 16l.900-3L3 10l2.400-2 1-3 3.100-.100zM8.500 13l2.500 2.500 4.500-5',
  chart: 'M4 4v16h16M8.500 16v-4M13 16V8M17.500 16v-6',
  sound: 'M4 10v4h3l5 4V6l-5 4zM15.500 9a4 4 0 0 1 0 6M18 6.500a8 8 0 0 1 0 11',
  muted: 'M4 10v4h3l5 4V6l-5 4zM16 9.500l5 5M21 9.500l-5 5',
  bell: 'M6 17h12l-1.500-2.500V10a4.500 4.500 0 0 0-9 0v4.500zM10 20h4M12 5.500V3.500',
  bellOff: 'M6 17h12l-1.500-2.500V10a4.500 4.500 0 0 0-9 0v4.500zM10 20h4M4 4l16 16',
  comment: 'M4 5h16v11h-8l-4.500 4v-4H4zM8 9h8M8 12h5',
  close: 'M6 6l12 12M18 6L6 18',
  plus: 'M12 5v14M5 12h14',
  minus: 'M5 12h14',
  eye: 'M2.500 12S6 5.500 12 5.500 21.500 12 21.500 12 18 18.500 12 18.500 2.500 12 2.500 12zM12 14.800a2.800 2.800 0 1 0 0-5.600 2.800 2.800 0 0 0 0 5.600z',
  pencil: 'M4 20l1-4.500L16 4.500l3.500 3.500L8.500 19zM14 6.500l3.500 3.500',
  leave: 'M10 4H5v16h5M15 8l4 4-4 4M19 12H9',
  people: 'M9 11.500a3.200 3.200 0 1 0 0-6.400 3.200 3.200 0 0 0 0 6.400zM3 19.500c0-3.200 2.600-5.200 6-5.200s6 2 6 5.200M16 5.500a3 3 0 0 1 0 5.700M17.500 14.500c2.200.600 3.500 2.300 3.500 5',
  alert: 'M12 4l9 16H3zM12 10v4.500M12 17.300v.100',
  refresh: 'M19.500 9A8 8 0 0 0 5 8M4.500 4.500V8.500h4M4.500 15A8 8 0 0 0 19 16M19.500 19.500v-4h-4',
  check: 'M5 12.500l4.500 4.500L19 7.500',
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg className="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} />
    </svg>
  );
}
