// A module loader hook. @laravel/echo-react is written for Vite, which defines `import.meta.env`; this does for its module
// what Vite does, with this process's VITE_* variables, so that a test configures Echo as a Laravel project's .env does.

const ECHO_REACT = /\/@laravel\/echo-react\/dist\/index\.js$/;

export async function load(url, context, nextLoad) {
  const module = await nextLoad(url, context);
  if (!ECHO_REACT.test(url)) return module;
  return { ...module, source: `import.meta.env = process.env;\n${module.source}` };
}
