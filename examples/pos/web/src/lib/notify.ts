// Browser notifications, for what happens while the page is hidden. Asked for by a button, never unasked.

const WANTED = 'pos:notifications';

/** `unsupported` also on plain http other than localhost, where browsers offer none. */
export type Permission = NotificationPermission | 'unsupported' | 'off';

export function permission(): Permission {
  if (!('Notification' in window) || !window.isSecureContext) return 'unsupported';
  if (Notification.permission === 'granted' && localStorage.getItem(WANTED) === 'no') return 'off';
  return Notification.permission;
}

/** Turns them on, asking the browser if need be, or off again. */
export async function toggleNotifications(): Promise<Permission> {
  if (permission() === 'unsupported') return 'unsupported';
  if (permission() === 'granted') {
    localStorage.setItem(WANTED, 'no');
  } else {
    localStorage.setItem(WANTED, 'yes');
    await Notification.requestPermission();
  }
  return permission();
}

/** Shows one if the page is hidden and the person wants them. One with the same tag takes the place of the earlier one. */
export function notify(title: string, tag: string): void {
  if (!document.hidden || permission() !== 'granted') return;
  const notification = new Notification(title, { tag, icon: '/favicon.svg' });
  notification.onclick = () => {
    window.focus();
    notification.close();
  };
}
