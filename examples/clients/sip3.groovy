/*
 * SIP3: marks each call whose source APIBAN lists with the attribute "apiban", to search for and to plot. It drops
 * nothing. As udf/apiban.groovy of sip3-salto, with "apiban feed" on the same host.
 */
package udf

import java.util.concurrent.atomic.AtomicReference

def mirror = 'http://127.0.0.1:8088/ipset/KEY/list'
def listed = new AtomicReference(Collections.emptySet())

def fetch = {
    try {
        def text = new URL(mirror).getText(connectTimeout: 2000, readTimeout: 5000)
        listed.set(text.readLines().toSet())
    } catch (IOException e) {
        // The mirror does not answer: what was listed stays.
    }
}
vertx.executeBlocking({ promise -> fetch(); promise.complete() }, { })
vertx.setPeriodic(300000L, { vertx.executeBlocking({ promise -> fetch(); promise.complete() }, { }) })

vertx.eventBus().localConsumer('sip_message_udf', { event ->
    def packet = event.body()
    if (listed.get().contains(packet['src_addr'])) {
        packet['attributes']['apiban'] = true
    }
    event.reply(true)
})
