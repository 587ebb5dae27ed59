import { createApp } from 'vue'
import App from './App.vue'
import * as announce from './desk/announce'
import * as elder from './desk/elder'
import { startSession } from './desk/session'
import * as presence from './desk/presence'
import { follow } from './desk/route'
import * as sound from './desk/sound'
import * as state from './desk/state'
import * as theme from './desk/theme'
import { i18n } from './words'

theme.start()
elder.start()
follow()
startSession()
state.start()
presence.start()
announce.start()
sound.start()
createApp(App).use(i18n).mount('#app')
