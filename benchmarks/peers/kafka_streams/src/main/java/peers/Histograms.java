package peers;

import java.lang.management.ManagementFactory;
import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.LongAdder;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.PunctuationType;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;

/**
 * Histograms of 20 features in windows of an hour: Histograms BOOTSTRAP TOPIC N dsl|processor FOLDER.
 *
 * dsl: groupByKey, windowedBy, aggregate, as the documentation has it. processor: profiles are kept as objects on the heap, and written
 * to the store once a second and when a window closes; what a crash between two writes costs is left open, for the sake of speed.
 */
public final class Histograms {
    private static final long HOUR_MS = 3_600_000;
    private static final long GRACE_MS = 120_000;
    private static final LongAdder SEEN = new LongAdder();

    public static void main(String[] arguments) throws Exception {
        String topic = arguments[1];
        long n = Long.parseLong(arguments[2]);
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "streams-" + arguments[3] + System.nanoTime());
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments[0]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, arguments[4]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 2_000);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5_000);
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 4 << 20);
        settings.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        StreamsBuilder builder = new StreamsBuilder();
        if (arguments[3].equals("dsl")) {
            dsl(builder, topic);
        } else {
            processor(builder, topic);
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            System.exit(1);
            return null;
        });
        streams.start();
        measure(n);
        System.exit(0);
    }

    /** Print what was measured between 40 % of the events, when the compilers are through with the most, and the last. */
    private static void measure(long n) throws InterruptedException {
        long seen = 0, began = 0, cpu = 0, from = 0;
        while (seen < n) {
            Thread.sleep(10);
            seen = SEEN.sum();
            if (from == 0 && seen >= 4 * n / 10) {
                from = seen;
                began = System.nanoTime();
                cpu = cpuNanos();
            }
        }
        double took = System.nanoTime() - began, spent = cpuNanos() - cpu;
        System.out.printf(
                java.util.Locale.ROOT, "{\"events_per_second\": %.1f, \"cpu_us_per_event\": %.4f}%n",
                1e9 * (seen - from) / took, spent / 1e3 / (seen - from));
        System.out.flush();
    }

    private static long cpuNanos() {
        return ((com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    private static Consumed<String, Event> events() {
        Serde<Event> serde = Serdes.serdeFrom((name, event) -> null, (name, bytes) -> Event.read(bytes));
        return Consumed.with(Serdes.String(), serde)
                .withTimestampExtractor((record, previous) -> record.value() instanceof Event event ? event.time : previous);
    }

    private static void dsl(StreamsBuilder builder, String topic) {
        Serde<Profile> profiles = Serdes.serdeFrom((name, profile) -> profile.toBytes(), (name, bytes) -> Profile.of(bytes));
        builder.stream(topic, events())
                .groupByKey()
                .windowedBy(TimeWindows.ofSizeAndGrace(Duration.ofMillis(HOUR_MS), Duration.ofMillis(GRACE_MS)))
                .aggregate(
                        Profile::new,
                        (model, event, profile) -> {
                            SEEN.increment();
                            return profile.add(event);
                        },
                        Materialized.<String, Profile, WindowStore<Bytes, byte[]>>as("histograms")
                                .withKeySerde(Serdes.String())
                                .withValueSerde(profiles));
    }

    private static void processor(StreamsBuilder builder, String topic) {
        builder.addStateStore(Stores.keyValueStoreBuilder(
                Stores.persistentKeyValueStore("histograms"), Serdes.String(), Serdes.ByteArray()));
        builder.stream(topic, events()).process(HeapHistograms::new, "histograms");
    }

    private static final class HeapHistograms implements Processor<String, Event, Void, Void> {
        private record Pane(String model, long start) {}

        private final Map<Pane, Profile> panes = new HashMap<>();
        private final Map<Pane, Long> written = new HashMap<>();
        private KeyValueStore<String, byte[]> store;
        private long clock;

        @Override
        public void init(ProcessorContext<Void, Void> context) {
            store = context.getStateStore("histograms");
            context.schedule(Duration.ofSeconds(1), PunctuationType.WALL_CLOCK_TIME, now -> write());
        }

        @Override
        public void process(Record<String, Event> record) {
            SEEN.increment();
            Event event = record.value();
            clock = Math.max(clock, event.time);
            panes.computeIfAbsent(new Pane(event.model, event.time / HOUR_MS), pane -> new Profile()).add(event);
        }

        private void write() {
            panes.forEach((pane, profile) -> {
                if (!Long.valueOf(profile.n).equals(written.put(pane, profile.n))) {
                    store.put(pane.model + "|" + pane.start, profile.toBytes());
                }
            });
            panes.keySet().removeIf(pane -> (pane.start + 1) * HOUR_MS + GRACE_MS <= clock);
            written.keySet().retainAll(panes.keySet());
        }
    }
}
