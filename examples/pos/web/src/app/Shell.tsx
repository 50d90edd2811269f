// What surrounds every page: where one can go, the connection, who is online, sound and notifications.

import { useEffect, useState } from 'react';
import { Link, Redirect, Route, Switch, useLocation } from 'wouter';

import { Avatar } from '../components/Avatar';
import { Icon } from '../components/Icon';
import { Menu } from '../components/Menu';
import { OrderPanel } from '../components/OrderPanel';
import { useConnection } from '../hooks/useConnection';
import type { ConnectionState } from '../lib/echo';
import { count, ROLE_LABEL } from '../lib/format';
import { permission, toggleNotifications } from '../lib/notify';
import { isMuted, setMuted } from '../lib/sound';
import { Notices } from './Notices';
import { homeOf, pagesOf } from './routes';
import { useStaff } from './staff';
import { useLive, useStores } from './stores';

export function Shell({ onSignOut }: { onSignOut: () => void }) {
  const { user } = useStores();
  const pages = pagesOf(user.role);
  const [path] = useLocation();
  const current = pages.find((page) => page.path === path);
  useEffect(() => {
    document.title = current === undefined ? 'Fanfare Till' : `${current.label} · Fanfare Till`;
  }, [current]);
  return (
    <div className="shell">
      <a className="skip" href="#content">Skip to content</a>
      <header className="bar">
        <h1 className="hidden">{current?.label}</h1>
        <span className="brand">
          <img src="/favicon.svg" alt="" width="28" height="28" />
          <span>Fanfare Till</span>
        </span>
        <nav className="nav" aria-label="Pages">
          {pages.map(({ path: to, label, icon }) => (
            <Link key={to} href={to} className="nav-link" title={label} aria-current={to === path ? 'page' : undefined}>
              <Icon name={icon} />
              <span>{label}</span>
            </Link>
          ))}
        </nav>
        <div className="tools">
          <Connection />
          <Online />
          <SoundSwitch />
          <NotificationSwitch />
          <Menu label={`Signed in as ${user.name}`} face={<Avatar name={user.name} />} testId="user-menu">
            <p className="menu-title">{user.name}</p>
            <p className="muted">{ROLE_LABEL[user.role]}</p>
            <button type="button" className="button" onClick={onSignOut}>
              <Icon name="leave" /> Sign out
            </button>
          </Menu>
        </div>
      </header>
      <NotLive />
      <Switch>
        {pages.map(({ path: at, component }) => (
          <Route key={at} path={at} component={component} />
        ))}
        <Route><Redirect to={homeOf(user.role)} replace /></Route>
      </Switch>
      <OrderPanel />
      <Notices />
    </div>
  );
}

const CONNECTION: Record<ConnectionState, string> = {
  initialized: 'Connecting…',
  connecting: 'Connecting…',
  connected: 'Live',
  unavailable: 'No connection',
  failed: 'No connection',
  disconnected: 'Disconnected',
};

function Connection() {
  const state = useConnection();
  return (
    <span className="connection" role="status" data-testid="connection" data-state={state}>
      <span className="dot" aria-hidden="true" />
      <span>{CONNECTION[state]}</span>
    </span>
  );
}

function Online() {
  const { members } = useStaff();
  const { user } = useStores();
  return (
    <Menu
      label={`${members.length} online`}
      testId="online"
      face={<><Icon name="people" /><span className="tally">{members.length}</span></>}
    >
      <p className="menu-title">{count(members.length, 'person', 'people')} online</p>
      <ul className="people">
        {members.map(({ id, name, role }) => (
          <li key={id} data-testid={`online-${id}`}>
            <Avatar name={name} />
            <span>{name}{id === String(user.id) && ' (you)'}</span>
            <span className="muted">{ROLE_LABEL[role]}</span>
          </li>
        ))}
      </ul>
    </Menu>
  );
}

function SoundSwitch() {
  const [muted, set] = useState(isMuted);
  return (
    <button
      type="button" className="icon-button" aria-label="Mute sound" aria-pressed={muted} data-testid="mute"
      title={muted ? 'Sound is off' : 'Sound is on'}
      onClick={() => {
        setMuted(!muted);
        set(!muted);
      }}
    >
      <Icon name={muted ? 'muted' : 'sound'} />
    </button>
  );
}

const NOTIFICATIONS = {
  default: 'Get notifications while this page is hidden',
  off: 'Get notifications while this page is hidden',
  granted: 'Notifications are on while this page is hidden',
  denied: 'The browser blocks notifications from this page',
};

function NotificationSwitch() {
  const [state, set] = useState(permission);
  if (state === 'unsupported') return null;
  return (
    <button
      type="button" className="icon-button" aria-label="Notifications" aria-pressed={state === 'granted'}
      data-testid="notifications" title={NOTIFICATIONS[state]} disabled={state === 'denied'}
      onClick={() => void toggleNotifications().then(set)}
    >
      <Icon name={state === 'granted' ? 'bell' : 'bellOff'} />
    </button>
  );
}

function NotLive() {
  const { live, waiting } = useLive();
  if (live) return null;
  return (
    <p className="not-live" role="status" data-testid="not-live">
      <Icon name="alert" />
      <span>
        <strong>Not live.</strong> Everything is saved, but the broadcast server does not answer: {count(waiting, 'change')} will
        reach the other screens as soon as it does.
      </span>
    </p>
  );
}
