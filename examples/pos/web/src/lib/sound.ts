// Two short chimes made by WebAudio. Browsers allow sound only after the person touched the page.

const MUTED = 'pos:muted';
let context: AudioContext | undefined;

/** Makes sound possible after the first touch or key. Returns how to stop waiting for it. */
export function unlockSound(): () => void {
  const unlock = () => {
    context ??= new AudioContext();
    void context.resume();
  };
  const events = ['pointerdown', 'keydown'] as const;
  for (const event of events) window.addEventListener(event, unlock, { once: true });
  return () => {
    for (const event of events) window.removeEventListener(event, unlock);
  };
}

export const isMuted = (): boolean => localStorage.getItem(MUTED) === 'yes';

export function setMuted(muted: boolean): void {
  localStorage.setItem(MUTED, muted ? 'yes' : 'no');
}

/** Rising for a new order, a single tone for what became ready. */
export function chime(kind: 'new' | 'ready'): void {
  if (context === undefined || context.state !== 'running' || isMuted()) return;
  const notes = kind === 'new' ? [659.25, 880] : [783.99];
  notes.forEach((frequency, index) => tone(context as AudioContext, frequency, index * 0.13));
}

function tone(audio: AudioContext, frequency: number, delay: number): void {
  const at = audio.currentTime + delay;
  const oscillator = audio.createOscillator();
  const gain = audio.createGain();
  oscillator.frequency.value = frequency;
  // A quick rise and a long fall, without a click at either end.
  gain.gain.setValueAtTime(0, at);
  gain.gain.linearRampToValueAtTime(0.18, at + 0.015);
  gain.gain.exponentialRampToValueAtTime(0.001, at + 0.5);
  oscillator.connect(gain).connect(audio.destination);
  oscillator.start(at);
  oscillator.stop(at + 0.5);
}
