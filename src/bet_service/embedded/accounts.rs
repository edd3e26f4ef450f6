//! Credits of players.

use std::collections::{BTreeMap, HashMap};

use crate::bets::PlayerId;

/// What a player begins with.
const START: u64 = 1000;

/// Balances of those who played last. Who is forgotten begins anew.
#[derive(Debug)]
pub(super) struct Accounts {
    most: usize,
    accounts: HashMap<PlayerId, Account>,
    /// By when they were last used, the longest ago first.
    used: BTreeMap<u64, PlayerId>,
    uses: u64,
}

#[derive(Debug)]
struct Account {
    balance: u64,
    used: u64,
}

impl Accounts {
    /// Of `most` players.
    pub(super) fn new(most: usize) -> Self {
        Self { most, accounts: HashMap::new(), used: BTreeMap::new(), uses: 0 }
    }

    /// Takes a stake; `false` if there is not so much.
    pub(super) fn withdraw(&mut self, player: &PlayerId, amount: u64) -> bool {
        let account = self.account(player);
        let Some(rest) = account.balance.checked_sub(amount) else { return false };
        account.balance = rest;
        true
    }

    /// Pays what was won, or a stake back.
    pub(super) fn pay(&mut self, player: &PlayerId, amount: u64) {
        let account = self.account(player);
        account.balance = account.balance.saturating_add(amount);
    }

    /// Who has less than `least` begins anew: nobody has to stop at a demo.
    pub(super) fn refill(&mut self, player: &PlayerId, least: u64) {
        let account = self.account(player);
        if account.balance < least {
            account.balance = START;
        }
    }

    #[cfg(test)]
    pub(super) fn balance(&mut self, player: &PlayerId) -> u64 {
        self.account(player).balance
    }

    fn account(&mut self, player: &PlayerId) -> &mut Account {
        self.uses += 1;
        let used = self.uses;
        if !self.accounts.contains_key(player)
            && self.accounts.len() >= self.most
            && let Some((_, longest)) = self.used.pop_first()
        {
            self.accounts.remove(&longest);
        }
        let account = self.accounts.entry(player.clone()).or_insert(Account { balance: START, used });
        self.used.remove(&account.used);
        account.used = used;
        self.used.insert(used, player.clone());
        account
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_spends_more_than_there_is_and_the_longest_absent_is_forgotten() {
        let player = |name| PlayerId::new(name).unwrap();
        let (ann, bob, cat) = (player("ann"), player("bob"), player("cat"));
        let mut accounts = Accounts::new(2);
        assert!(accounts.withdraw(&ann, 990) && !accounts.withdraw(&ann, 11));
        accounts.refill(&ann, 10);
        assert_eq!(accounts.balance(&ann), 10);
        accounts.pay(&bob, 500);
        accounts.refill(&ann, 11);
        accounts.withdraw(&ann, 1);
        accounts.pay(&cat, 1);
        assert_eq!((accounts.balance(&ann), accounts.accounts.len(), accounts.used.len()), (999, 2, 2));
        assert_eq!(accounts.balance(&bob), 1000, "forgotten");
    }
}
