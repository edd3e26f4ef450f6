//! The numbers of a `stats` message.

use serde::Deserialize;

/// What a player's browser counts, as far as it does: W3C webrtc-stats, `inbound-rtp`. Totals are of the session.
///
/// Nothing here is true because it is said: a number that is none of those that can be is read as not said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlayerStatistics {
    /// Video frames that came whole, whatever became of them.
    #[serde(deserialize_with = "total")]
    pub frames_received: Option<u64>,
    /// Video frames that came out of the decoder.
    #[serde(deserialize_with = "total")]
    pub frames_decoded: Option<u64>,
    /// Video frames that came out of it and were not shown, or never went in because it was late.
    #[serde(deserialize_with = "total")]
    pub frames_dropped: Option<u64>,
    /// Payload bytes of video.
    #[serde(deserialize_with = "total")]
    pub bytes_received: Option<u64>,
    /// Packets of audio and video that were lost on the way; those that a retransmission repaired are not taken off.
    #[serde(deserialize_with = "total")]
    pub packets_lost: Option<u64>,
    /// How often the picture stood.
    #[serde(deserialize_with = "total")]
    pub freeze_count: Option<u64>,
    /// For how long in all, in milliseconds.
    #[serde(deserialize_with = "total")]
    pub freezes_ms: Option<u64>,
    /// How long a video frame waits in the jitter buffer, in milliseconds; the mean since the report before.
    #[serde(deserialize_with = "total")]
    pub jitter_buffer_delay: Option<u64>,
    /// How old a video frame is when it is shown, in milliseconds, by abs-capture-time; the mean since the report before.
    #[serde(deserialize_with = "total")]
    pub capture_to_shown_ms: Option<u64>,
}

/// The largest whole number that a JavaScript number holds exactly.
const MOST: f64 = 9_007_199_254_740_991.0;

/// A number from 0 up, its fraction cut off; `packetsLost` may be below 0 where packets came twice (RFC 3550 §6.4.1), and
/// other clients may write what they like.
fn total<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let number = value.as_f64().filter(|n| *n <= MOST);
    Ok(number.map(|n| n.max(0.0) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> PlayerStatistics {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_the_player_of_ours_says_is_read() {
        let said = read(
            r#"{"clientTs":1,"fps":29.9,"framesReceived":303,"framesDecoded":300,"framesDropped":2,"freezeCount":1,"freezesMs":400,
                "jitterBufferDelay":31.7,"packetsLost":5,"bytesReceived":600000,"rttMs":20.5,
                "captureToShownMs":143}"#,
        );
        let expected = PlayerStatistics {
            frames_received: Some(303),
            frames_decoded: Some(300),
            frames_dropped: Some(2),
            bytes_received: Some(600_000),
            packets_lost: Some(5),
            freeze_count: Some(1),
            freezes_ms: Some(400),
            jitter_buffer_delay: Some(31),
            capture_to_shown_ms: Some(143),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn what_cannot_be_was_not_said() {
        assert_eq!(read("{}"), PlayerStatistics::default());
        for value in ["null", "\"300\"", "1e300", "[]", "{}", "true"] {
            assert_eq!(read(&format!(r#"{{"framesDecoded":{value}}}"#)).frames_decoded, None, "{value}");
        }
        assert_eq!(read(r#"{"packetsLost":-3}"#).packets_lost, Some(0));
    }
}
