package peers;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;

/** One event, read with Jackson's streaming parser: the fastest way that Jackson has, no tree and no map. */
final class Event {
    private static final JsonFactory JSON = new JsonFactory();

    String model;
    long time;
    final double[] numbers = new double[Profile.MAX_FEATURES];
    final String[] texts = new String[Profile.MAX_FEATURES];
    int features;

    static Event read(byte[] value) {
        try (JsonParser parser = JSON.createParser(value)) {
            Event event = new Event();
            parser.nextToken();
            while (parser.nextToken() == JsonToken.FIELD_NAME) {
                String name = parser.currentName();
                JsonToken token = parser.nextToken();
                switch (name) {
                    case "model" -> event.model = parser.getText();
                    case "time" -> event.time = parser.getLongValue();
                    case "features" -> event.readFeatures(parser);
                    default -> parser.skipChildren();
                }
            }
            return event.model == null ? null : event;
        } catch (IOException malformed) {
            return null;
        }
    }

    /** Features come in the order of their names in these events: their place is their index. */
    private void readFeatures(JsonParser parser) throws IOException {
        while (parser.nextToken() == JsonToken.FIELD_NAME) {
            JsonToken token = parser.nextToken();
            if (token == JsonToken.VALUE_STRING) {
                texts[features] = parser.getText();
            } else {
                numbers[features] = token == JsonToken.VALUE_NULL ? Double.NaN : parser.getDoubleValue();
            }
            features++;
        }
    }
}
