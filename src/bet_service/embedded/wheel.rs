//! The wheel and what can be bet on it.

use std::fmt;
use std::str::FromStr;

/// The numbers of a French wheel that are red.
const RED: [u8; 18] = [1, 3, 5, 7, 9, 12, 14, 16, 18, 19, 21, 23, 25, 27, 30, 32, 34, 36];

/// Numbers on the wheel: 0 to 36.
pub(super) const NUMBERS: u64 = 37;

/// Where chips can be laid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    Red,
    Black,
    Even,
    Odd,
    /// 1 to 18.
    Low,
    /// 19 to 36.
    High,
    Number(u8),
}

impl Spot {
    /// Those that are no numbers.
    const OUTSIDE: [(Spot, &'static str); 6] = [
        (Spot::Red, "red"),
        (Spot::Black, "black"),
        (Spot::Even, "even"),
        (Spot::Odd, "odd"),
        (Spot::Low, "low"),
        (Spot::High, "high"),
    ];

    /// Whether it wins with `number`. Zero is neither colour nor even.
    pub(super) fn wins(self, number: u8) -> bool {
        match self {
            Spot::Number(own) => own == number,
            _ if number == 0 => false,
            Spot::Red => RED.contains(&number),
            Spot::Black => !RED.contains(&number),
            Spot::Even => number.is_multiple_of(2),
            Spot::Odd => !number.is_multiple_of(2),
            Spot::Low => number <= 18,
            Spot::High => number > 18,
        }
    }

    /// What a stake of 1 brings if it wins, the stake included.
    pub(super) fn pays(self) -> u64 {
        if matches!(self, Spot::Number(_)) { 36 } else { 2 }
    }

    /// All that win with `number`.
    pub(super) fn winners(number: u8) -> Vec<String> {
        let outside = Self::OUTSIDE.iter().map(|(spot, _)| *spot).filter(|spot| spot.wins(number));
        [Spot::Number(number)].into_iter().chain(outside).map(|spot| spot.to_string()).collect()
    }
}

/// `red`, `black`, or `green` for the zero.
pub(super) fn colour(number: u8) -> &'static str {
    match number {
        0 => "green",
        _ if RED.contains(&number) => "red",
        _ => "black",
    }
}

impl FromStr for Spot {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if let Some((spot, _)) = Self::OUTSIDE.iter().find(|(_, name)| *name == text) {
            return Ok(*spot);
        }
        let number = text.parse::<u8>().map_err(|_| ())?;
        let is_plain = u64::from(number) < NUMBERS && number.to_string() == text;
        if is_plain { Ok(Spot::Number(number)) } else { Err(()) }
    }
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spot::Number(number) => write!(f, "{number}"),
            spot => f.write_str(Self::OUTSIDE.iter().find(|(other, _)| other == spot).map_or("", |(_, name)| name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spots_have_names_and_no_other_spelling() {
        for name in ["red", "black", "even", "odd", "low", "high", "0", "7", "36"] {
            assert_eq!(name.parse::<Spot>().map(|spot| spot.to_string()), Ok(name.to_owned()));
        }
        for wrong in ["", "Red", "37", "07", "+7", "-1", "256", "7.0"] {
            assert_eq!(wrong.parse::<Spot>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn the_house_keeps_one_in_37_whatever_is_bet() {
        for name in ["red", "black", "even", "odd", "low", "high", "0", "17"] {
            let spot: Spot = name.parse().unwrap();
            let paid: u64 = (0..NUMBERS as u8).filter(|number| spot.wins(*number)).map(|_| spot.pays()).sum();
            assert_eq!(paid, NUMBERS - 1, "{name}");
        }
        assert_eq!(Spot::winners(17), ["17", "black", "odd", "low"]);
        assert_eq!((Spot::winners(0), colour(0)), (vec!["0".to_owned()], "green"));
    }
}
