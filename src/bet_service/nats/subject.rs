//! The subjects: `PREFIX.bets.TABLE`, `PREFIX.rounds.TABLE`, `PREFIX.tables.TABLE`.

/// The subjects of a node.
#[derive(Clone, Debug)]
pub(super) struct Subjects {
    prefix: String,
}

impl Subjects {
    /// That begin with `prefix`, which has been checked.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Where bets of a table are asked for.
    pub(super) fn bets(&self, table: &str) -> String {
        format!("{}.bets.{}", self.prefix, token(table))
    }

    /// Where it is said whether a table is live.
    pub(super) fn tables(&self, table: &str) -> String {
        format!("{}.tables.{}", self.prefix, token(table))
    }

    /// Where the rounds of all tables come from.
    pub(super) fn all_rounds(&self) -> String {
        format!("{}.rounds.*", self.prefix)
    }
}

/// A name as one token of a subject. Letters, digits, `-` and `_` stand for themselves, which are all that a configured
/// table has; any other byte is written `%` and two hexadecimal digits.
pub(in super::super) fn token(name: &str) -> String {
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("%{byte:02X}"));
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn subjects_have_the_tables_name_as_their_last_token() {
        let subjects = Subjects::new("casino.eu");
        assert_eq!(subjects.bets("roulette-1"), "casino.eu.bets.roulette-1");
        assert_eq!(
            (subjects.tables("a b"), subjects.all_rounds()),
            ("casino.eu.tables.a%20b".to_owned(), "casino.eu.rounds.*".to_owned())
        );
        assert_eq!(token("a.b>*%"), "a%2Eb%3E%2A%25");
    }

    proptest! {
        #[test]
        fn a_token_has_nothing_that_means_something_in_a_subject_and_two_names_have_two(one: String, other: String) {
            let token_of_one = token(&one);
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_%".contains(&b);
            prop_assert!(token_of_one.bytes().all(plain));
            prop_assert_eq!(token_of_one == token(&other), one == other);
        }
    }
}
