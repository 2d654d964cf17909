package peers;

import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;

/** Counts of one model's window: 128 cells between fixed edges for a number, a count per value for a category, 7 at most. */
final class Profile {
    static final int MAX_FEATURES = 20;
    static final int NUMBERS = 15;
    static final int CELLS = 130;
    static final int VALUES = 8;
    private static final double[] EDGES = new double[CELLS - 2];
    private static final Map<String, Integer> CODES = new HashMap<>();

    static {
        for (int i = 0; i < EDGES.length; i++) {
            EDGES[i] = -3 + 6.0 * i / (EDGES.length - 1);
        }
        for (int i = 0; i < 4; i++) {
            CODES.put("colour " + i, i);
        }
    }

    final long[] counts = new long[NUMBERS * CELLS + (MAX_FEATURES - NUMBERS) * VALUES];
    long n;

    Profile add(Event event) {
        n++;
        for (int i = 0; i < NUMBERS; i++) {
            int at = Arrays.binarySearch(EDGES, event.numbers[i]);
            counts[i * CELLS + (at < 0 ? -at - 1 : at + 1)]++;
        }
        for (int i = NUMBERS; i < MAX_FEATURES; i++) {
            counts[NUMBERS * CELLS + (i - NUMBERS) * VALUES + CODES.getOrDefault(event.texts[i], VALUES - 1)]++;
        }
        return this;
    }

    byte[] toBytes() {
        ByteBuffer buffer = ByteBuffer.allocate(8 * (counts.length + 1));
        buffer.putLong(n).asLongBuffer().put(counts);
        return buffer.array();
    }

    static Profile of(byte[] bytes) {
        Profile profile = new Profile();
        if (bytes != null) {
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            profile.n = buffer.getLong();
            buffer.asLongBuffer().get(profile.counts);
        }
        return profile;
    }
}
