// Types of the variables that Vite puts into the pages.

interface ImportMetaEnv {
    readonly VITE_PUSHER_SCHEME: string;
}

interface ImportMeta {
    readonly env: ImportMetaEnv;
}
