/*
 * The side of SIP3 that a user-defined function meets: an event bus, timers and a pool of threads for what blocks, with
 * the names and the rules that Vert.x gives them. Argument: the function. Each line of the standard input is a command
 * and gets one line of JSON:
 *
 *   packet ADDRESS  a SIP message from there goes to the function
 *   turn            every timer fires once
 *   settle          waits until nothing blocks any more
 */
import groovy.json.JsonOutput
import java.util.concurrent.ExecutorService
import java.util.concurrent.Executors
import java.util.concurrent.ThreadFactory
import java.util.concurrent.TimeUnit

class Promise {
    int completed = 0

    void complete(result = null) { completed++ }
}

class EventBus {
    def consumers = [:]

    void localConsumer(String address, Closure consumer) { consumers[address] = consumer }
}

class Vertx {
    def bus = new EventBus()
    def timers = []
    def trouble = []
    def works = []
    ExecutorService pool = Executors.newCachedThreadPool({ work ->
        def thread = new Thread(work)
        thread.daemon = true
        thread
    } as ThreadFactory)

    EventBus eventBus() { bus }

    long setPeriodic(long milliseconds, Closure handler) {
        timers << [milliseconds, handler]
        timers.size()
    }

    void executeBlocking(Closure work, Closure done) {
        works << pool.submit {
            def promise = new Promise()
            try {
                work(promise)
                done(promise)
            } catch (Throwable thrown) {
                trouble << thrown.toString()
            }
            if (promise.completed != 1) {
                trouble << "a promise was completed ${promise.completed} times".toString()
            }
        }
    }

    int blocking() { works.count { !it.done } }

    void settle() { works*.get(60, TimeUnit.SECONDS) }
}

class Event {
    def packet
    def replies = []

    def body() { packet }

    void reply(answer) { replies << answer }
}

def vertx = new Vertx()
new GroovyShell(new Binding(vertx: vertx)).evaluate(new File(args[0]))
System.in.eachLine { line ->
    def words = line.tokenize(' ')
    def answer = [:]
    switch (words[0]) {
        case 'packet':
            def event = new Event(packet: [
                src_addr: words[1], src_port: 5060, dst_addr: '198.51.100.10', dst_port: 5060, attributes: [:],
                payload: [method: 'INVITE'],
            ])
            vertx.bus.consumers['sip_message_udf'](event)
            answer = [replies: event.replies, attributes: event.packet.attributes]
            break
        case 'turn':
            vertx.timers.each { it[1](1L) }
            answer = [periods: vertx.timers.collect { it[0] }]
            break
        case 'settle':
            vertx.settle()
            break
    }
    println JsonOutput.toJson(answer + [blocking: vertx.blocking(), trouble: vertx.trouble])
}
