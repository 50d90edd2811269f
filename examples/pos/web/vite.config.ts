import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

// Where `npm run dev` finds the back end; `examples/pos/run` prints its address.
const backEnd = process.env.POS_URL ?? 'http://127.0.0.1:8000';

export default defineConfig({
  plugins: [react()],
  server: {
    // The browser's Host and Origin are passed on as they are: the back end compares them.
    proxy: { '/api': backEnd, '/broadcasting': backEnd },
  },
  test: { include: ['src/**/*.test.ts'] },
});
