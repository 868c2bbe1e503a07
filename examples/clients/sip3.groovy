/*
 * SIP3: marks each call whose source APIBAN lists with the attribute "apiban", to search for and to plot. It drops
 * nothing. As udf/apiban.groovy of sip3-salto, with "apiban feed" on the same host.
 */
package udf

import java.util.concurrent.atomic.AtomicReference

def mirror = 'http://127.0.0.1:8088/ipset/KEY/list'

// For each family and prefix length that the list has: the beginnings of the addresses in it.
def listed = new AtomicReference([:])

// Compared by value: an IPv6 address has more than one spelling.
def number = { text ->
    def bytes = InetAddress.getByName(text).address
    [bytes.length * 8, new BigInteger(1, bytes)]
}
def beginning = { bits, value, length -> value.shiftRight(bits - length) }

def fetch = {
    try {
        def nets = [:].withDefault { [] as Set }
        new URL(mirror).getText(connectTimeout: 2000, readTimeout: 5000).eachLine { line ->
            // No name is ever looked up.
            if (!(line ==~ /[0-9.]+(\/\d+)?|[0-9a-f]*:[0-9a-f:.]+(\/\d+)?/)) {
                throw new IllegalArgumentException(line)
            }
            def parts = line.tokenize('/')
            def (bits, value) = number(parts[0])
            def length = parts.size() > 1 ? parts[1].toInteger() : bits
            nets[[bits, length]] << beginning(bits, value, length)
        }
        listed.set(new LinkedHashMap(nets))
    } catch (IOException | RuntimeException e) {
        // The mirror does not answer, or something else answers in its place: what was listed stays.
    }
}
vertx.executeBlocking({ promise -> fetch(); promise.complete() }, { })
vertx.setPeriodic(300000L, { vertx.executeBlocking({ promise -> fetch(); promise.complete() }, { }) })

vertx.eventBus().localConsumer('sip_message_udf', { event ->
    def packet = event.body()
    def (bits, value) = number(packet['src_addr'])
    if (listed.get().any { net, members -> net[0] == bits && beginning(bits, value, net[1]) in members }) {
        packet['attributes']['apiban'] = true
    }
    event.reply(true)
})
