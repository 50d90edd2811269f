// For `<script src="/recover.js">`: the same as `Fanfare.recover`.

import { recover } from './index.js';

Object.assign(globalThis, { Fanfare: { recover } });
