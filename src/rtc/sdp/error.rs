//! Why an offer was not accepted, in words for whoever configured the encoder.

/// Why an offer was not accepted. The text names the section and what was wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// 400: not SDP, or SDP that contradicts itself.
    #[error("{0}")]
    Malformed(String),
    /// 422: valid SDP that asks for something this node does not do.
    #[error("{0}")]
    Unsupported(String),
    /// 422: the offer has no codec that can be used; lists what it has and what was wanted.
    #[error("{0}")]
    NoCommonCodec(String),
}

/// `text` of the peer as it may be quoted in an error: short, and printable ASCII only.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 48;
    let mut quoted: String =
        text.chars().take(LONGEST).map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).collect();
    if text.chars().nth(LONGEST).is_some() {
        quoted.push('…');
    }
    quoted
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn quotes_are_short_and_printable() {
        assert_eq!(quoted("a\r\nb\u{7f}é"), "a??b??");
        assert_eq!(quoted(&"x".repeat(48)), "x".repeat(48));
        assert_eq!(quoted(&"x".repeat(49)), format!("{}…", "x".repeat(48)));
    }
}
