import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  plugins: [vue()],
  define: {
    __VUE_OPTIONS_API__: false,
    __VUE_PROD_DEVTOOLS__: false,
    __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: false,
    __VUE_I18N_FULL_INSTALL__: false,
    __VUE_I18N_LEGACY_API__: false,
    __INTLIFY_PROD_DEVTOOLS__: false,
  },
  build: {
    // A folder inside dist/, so that emptying it leaves dist/.gitignore where it is.
    outDir: 'dist/page',
    emptyOutDir: true,
    // The last Chromium that runs on Windows 7: old PCs at duty desks.
    target: 'chrome109',
    // The content security policy allows neither data: addresses nor inline scripts.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 400,
  },
  server: {
    // `cargo run -p anmin --example page -- 127.0.0.1:8421` answers while one works on the page.
    proxy: { '/api': 'http://127.0.0.1:8421' },
  },
  test: { include: ['src/**/*.test.ts'] },
})
