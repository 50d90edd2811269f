// The order named in the address (`?order=7`): what was bought, who else has it open, and the comments.

import { type FormEvent, useEffect, useRef, useState } from 'react';
import { useLocation, useSearchParams } from 'wouter';

import { useStaff } from '../app/staff';
import { useStores } from '../app/stores';
import { useToasts } from '../app/toasts';
import { useComments } from '../hooks/useComments';
import { stepsFor, useOrderActions } from '../hooks/useOrderActions';
import { usePresence } from '../hooks/usePresence';
import { useRealtimeOrder } from '../hooks/useRealtimeOrders';
import { useDraft } from '../lib/draft';
import { money, time } from '../lib/format';
import { Avatar } from './Avatar';
import { Icon } from './Icon';
import { StatusBadge } from './OrderCard';

export function OrderPanel() {
  const [params] = useSearchParams();
  const [path, navigate] = useLocation();
  const id = Number(params.get('order') ?? NaN);
  if (!Number.isInteger(id)) return null;
  return <Panel key={id} id={id} onClose={() => navigate(path)} />;
}

function Panel({ id, onClose }: { id: number; onClose: () => void }) {
  const { user } = useStores();
  const order = useRealtimeOrder(id);
  const actions = useOrderActions();
  const panel = useRef<HTMLDivElement>(null);
  const [draft, setDraft] = useDraft(`comment:${id}`, '');
  const editing = draft !== '';
  const { show, watchers } = useStaff();

  useEffect(() => {
    show(id, editing);
  }, [show, id, editing]);
  useEffect(() => () => show(null, false), [show]);
  useEffect(() => {
    const opener = document.activeElement;
    panel.current?.focus();
    return () => {
      if (opener instanceof HTMLElement) opener.focus();
    };
  }, []);

  const steps = order === undefined ? [] : stepsFor(order, user.role);
  const editors = watchers(id).filter((watcher) => watcher.editing).map(({ user: editor }) => editor);
  return (
    <div
      className="panel" role="dialog" aria-labelledby="panel-title" tabIndex={-1} ref={panel} data-testid="order-panel"
      onKeyDown={(event) => {
        if (event.key === 'Escape') onClose();
      }}
    >
      <div className="panel-head">
        <h2 id="panel-title">Order {order === undefined ? '…' : `#${order.number}`}</h2>
        {order !== undefined && <StatusBadge status={order.status} />}
        <button type="button" className="icon-button" aria-label="Close" onClick={onClose}><Icon name="close" /></button>
      </div>
      <div className="panel-body">
        {order !== undefined && (
          <>
            <p className="muted">{order.customer} · {time(order.created_at)} · by {order.created_by}</p>
            <Looking id={id} editors={editors} />
            <table className="lines">
              <tbody>
                {order.items.map(({ product_id, name, quantity, price_cents }) => (
                  <tr key={product_id}>
                    <td className="quantity">{quantity} ×</td>
                    <th scope="row">{name}</th>
                    <td className="amount">{money(quantity * price_cents)}</td>
                  </tr>
                ))}
              </tbody>
              <tfoot>
                <tr><td /><th scope="row">Total</th><td className="amount">{money(order.total_cents)}</td></tr>
              </tfoot>
            </table>
            {steps.length > 0 && (
              <div className="order-actions">
                {steps.map(({ label, status, kind }) => (
                  <button
                    key={status} type="button" className={`button ${kind}`} disabled={actions.pending.has(id)}
                    onClick={() => void actions.setStatus(order, status)}
                  >
                    {label}
                  </button>
                ))}
              </div>
            )}
          </>
        )}
        <Comments id={id} draft={draft} setDraft={setDraft} />
      </div>
    </div>
  );
}

/** Who has this order open, from the order's own presence channel. */
function Looking({ id, editors }: { id: number; editors: string[] }) {
  const { user } = useStores();
  const others = usePresence(`orders.${id}`).filter((member) => member.id !== String(user.id));
  if (others.length === 0) return null;
  return (
    <ul className="looking" data-testid="looking" aria-label="Also here">
      {others.map(({ id: other, name }) => (
        <li key={other}>
          <Avatar name={name} /> {name} is {editors.includes(other) ? 'editing' : 'looking'}
        </li>
      ))}
    </ul>
  );
}

function Comments({ id, draft, setDraft }: { id: number; draft: string; setDraft: (text: string) => void }) {
  const { user } = useStores();
  const { fail } = useToasts();
  const { comments, typing, whisperTyping, add } = useComments(id, user.name);
  const [sending, setSending] = useState(false);
  const end = useRef<HTMLDivElement>(null);
  const number = comments?.length ?? 0;
  useEffect(() => {
    end.current?.scrollIntoView({ block: 'nearest' });
  }, [number]);

  const send = async (event: FormEvent) => {
    event.preventDefault();
    const body = draft.trim();
    if (body === '' || sending) return;
    setSending(true);
    try {
      await add(body);
      setDraft('');
    } catch (error) {
      fail(error);
    } finally {
      setSending(false);
    }
  };
  return (
    <section className="comments" aria-labelledby="comments-title">
      <h3 id="comments-title">Comments</h3>
      {comments?.length === 0 && <p className="muted">None yet.</p>}
      <ol>
        {comments?.map(({ id: comment, author, body, created_at }) => (
          <li key={comment} className={author === user.name ? 'comment mine' : 'comment'} data-testid={`comment-${comment}`}>
            <p className="comment-head"><strong>{author}</strong> <span className="muted">{time(created_at)}</span></p>
            <p>{body}</p>
          </li>
        ))}
      </ol>
      <p className="typing" aria-live="polite" data-testid="typing">{typing !== null && `${typing} is typing…`}</p>
      <div ref={end} />
      <form className="comment-form" onSubmit={(event) => void send(event)}>
        <label className="hidden" htmlFor="comment">Write a comment</label>
        <input
          id="comment" value={draft} maxLength={500} autoComplete="off" placeholder="Write a comment …"
          onChange={(event) => {
            setDraft(event.target.value);
            if (event.target.value !== '') whisperTyping();
          }}
        />
        <button type="submit" className="button primary" disabled={sending || draft.trim() === ''}>Send</button>
      </form>
    </section>
  );
}
