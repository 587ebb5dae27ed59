//! Who of several recipients has been told what, while an order is not through: on the next attempt only the others are told.
//!
//! What becomes of each recipient it hands on as news, for the record and for reports that come later.
//!
//! It knows no clock, socket or message. It lives as long as its carrier: over a restart everybody who waits for an order is told it
//! again, under the same id. Bounded by [`MOST`] orders; of the one that was forgotten first everybody is told again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use anmin_rules::order::{Order, OrderId};
use anmin_sensors::time::Wall;

use super::super::{DeliveryError, Receipt};
use crate::store::reach::{Addressed, Reach, Standing};

/// Orders that are remembered while they are not through.
const MOST: usize = 20_000;

/// How an order stands with one recipient.
#[derive(Clone, Debug)]
enum Stands {
    Waits {
        refusals: u32,
    },
    Told,
    /// Left out, and why.
    LeftOut(Arc<str>),
}

pub(super) struct Told {
    recipients: usize,
    /// So many times a recipient may be refused while others take it.
    refusals: u32,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    orders: HashMap<OrderId, Vec<Stands>>,
    /// As they came, those that are through too.
    came: VecDeque<OrderId>,
    news: Vec<News>,
}

/// What has become of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
struct News {
    /// What the message is called.
    key: Arc<str>,
    orders: Vec<OrderId>,
    recipient: u32,
    /// [`Reach::Accepted`] or [`Reach::LeftOut`].
    reach: Reach,
    why: String,
}

/// Of an order that is remembered.
fn stands<'m>(known: &'m HashMap<OrderId, Vec<Stands>>, order: &Order, recipient: usize) -> &'m Stands {
    &known[&order.id][recipient]
}

/// Recipients, by their place in the list, that still wait for the same orders.
pub(super) struct Share<'o> {
    pub orders: Vec<&'o Order>,
    pub recipients: Vec<usize>,
}

impl Told {
    pub(super) fn new(recipients: usize, refusals: u32) -> Self {
        Self { recipients, refusals, memory: Mutex::default() }
    }

    fn with<T>(&self, orders: &[&Order], act: impl FnOnce(&mut HashMap<OrderId, Vec<Stands>>) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        for order in orders.iter().filter(|order| !memory.orders.contains_key(&order.id)).collect::<Vec<_>>() {
            memory.orders.insert(order.id.clone(), vec![Stands::Waits { refusals: 0 }; self.recipients]);
            memory.came.push_back(order.id.clone());
        }
        while memory.came.len() > MOST {
            let first = memory.came.pop_front().expect("it is not empty");
            if orders.iter().all(|order| order.id != first) {
                memory.orders.remove(&first);
            }
        }
        act(&mut memory.orders)
    }

    /// Who is to be told what now: those who lack the same go together.
    pub(super) fn shares<'o>(&self, orders: &[&'o Order]) -> Vec<Share<'o>> {
        self.with(orders, |known| {
            let mut shares: Vec<Share<'o>> = Vec::new();
            for recipient in 0..self.recipients {
                let waits = |order: &&&Order| matches!(stands(known, order, recipient), Stands::Waits { .. });
                let lacks: Vec<&Order> = orders.iter().filter(waits).copied().collect();
                let same = |share: &&mut Share<'_>| {
                    share.orders.len() == lacks.len() && share.orders.iter().zip(&lacks).all(|(a, b)| a.id == b.id)
                };
                match shares.iter_mut().find(same) {
                    Some(share) => share.recipients.push(recipient),
                    None if lacks.is_empty() => {}
                    None => shares.push(Share { orders: lacks, recipients: vec![recipient] }),
                }
            }
            shares
        })
    }

    /// The peer has taken these for this recipient, in the message of this name.
    pub(super) fn handle_taken(&self, orders: &[&Order], recipient: usize, key: &str) {
        self.with(orders, |known| {
            for order in orders {
                if let Some(stands) = known.get_mut(&order.id) {
                    stands[recipient] = Stands::Told;
                }
            }
        });
        self.note(key, orders.iter().map(|order| order.id.clone()).collect(), recipient, Reach::Accepted, "");
    }

    fn note(&self, key: &str, orders: Vec<OrderId>, recipient: usize, reach: Reach, why: &str) {
        let news = News { key: key.into(), orders, recipient: recipient as u32, reach, why: why.to_owned() };
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).news.push(news);
    }

    /// What has become of whom since the last time, one for each message.
    pub(super) fn take_news(&self, channel: &Arc<str>, at: Wall) -> Vec<Addressed> {
        let news = std::mem::take(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner).news);
        let mut heard: Vec<Addressed> = Vec::new();
        for News { key, orders, recipient, reach, why } in news {
            let standing = Standing::new(reach, at, &why);
            match heard.iter_mut().find(|heard| heard.key == key && heard.orders == orders) {
                Some(heard) => drop(heard.recipients.insert(recipient, standing)),
                None => {
                    let recipients = [(recipient, standing)].into();
                    heard.push(Addressed { channel: Arc::clone(channel), key, orders, recipients });
                }
            }
        }
        heard
    }

    /// The peer will not take these for this recipient.
    pub(super) fn handle_refused(&self, orders: &[&Order], recipient: usize, key: &str, why: &str) {
        let mut left_out = Vec::new();
        self.with(orders, |known| {
            for order in orders {
                let Some(stands) = known.get_mut(&order.id) else { continue };
                if let Stands::Waits { refusals } = stands[recipient] {
                    stands[recipient] = match refusals + 1 {
                        many if many >= self.refusals => {
                            left_out.push(order.id.clone());
                            Stands::LeftOut(why.into())
                        }
                        refusals => Stands::Waits { refusals },
                    };
                }
            }
        });
        if !left_out.is_empty() {
            self.note(key, left_out, recipient, Reach::LeftOut, why);
        }
    }

    /// What became of an attempt. `later` is why somebody still waits, where the wire or the peer was at fault. Somebody must have been
    /// told each order, and nobody may wait any more, for it to be through; who was left out is then said. Where nobody has been told,
    /// the order itself is refused.
    pub(super) fn verdict(
        &self,
        orders: &[&Order],
        detail: &str,
        later: Option<DeliveryError>,
    ) -> Result<Receipt, DeliveryError> {
        self.with(orders, |known| {
            let mut left_out: Vec<String> = Vec::new();
            let (mut told, mut waits) = (vec![false; orders.len()], false);
            for recipient in 0..self.recipients {
                let mut refused = None;
                for (n, order) in orders.iter().enumerate() {
                    match stands(known, order, recipient) {
                        Stands::Told => told[n] = true,
                        Stands::LeftOut(why) => refused = Some(why),
                        Stands::Waits { .. } => waits = true,
                    }
                }
                left_out.extend(refused.map(|why| format!("recipient {}: {why}", recipient + 1)));
            }
            if let Some(later) = later {
                return Err(later);
            }
            let somebody = told.iter().any(|told| *told);
            if waits && somebody {
                return Err(DeliveryError::Retry("some were told, others were refused for now".to_owned()));
            }
            for order in orders {
                known.remove(&order.id);
            }
            let left_out = left_out.join("; ");
            match (told.iter().all(|told| *told), left_out.is_empty()) {
                (true, true) => Ok(Receipt::of(detail)),
                (true, false) => Ok(Receipt::of(format!("{detail}; not taken for {left_out}"))),
                (false, false) => Err(DeliveryError::Never(format!("taken for nobody: {left_out}"))),
                (false, true) => Err(DeliveryError::Never(format!("taken for nobody: {detail}"))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use anmin_rules::rule::Level;

    use super::*;
    use crate::samples;

    fn shares(told: &Told, orders: &[&Order]) -> Vec<(Vec<String>, Vec<usize>)> {
        let ids = |share: &Share<'_>| share.orders.iter().map(|order| order.id.to_string()).collect();
        told.shares(orders).iter().map(|share| (ids(share), share.recipients.clone())).collect()
    }

    #[test]
    fn nobody_is_told_twice_and_nobody_is_forgotten() {
        let told = Told::new(3, 1);
        let [one, two] = ["d1", "d2"].map(|device| samples::order(device, 1, Level::Red));
        let (first, second) = (one.id.to_string(), two.id.to_string());
        assert_eq!(shares(&told, &[&one]), [(vec![first.clone()], vec![0, 1, 2])]);
        told.handle_taken(&[&one], 0, "m");
        let busy = DeliveryError::Retry("busy".to_owned());
        assert_eq!(told.verdict(&[&one], "250", Some(busy.clone())), Err(busy));
        // What came meanwhile goes with it, and to the first alone.
        let both = [&one, &two];
        let wanted = [(vec![second.clone()], vec![0]), (vec![first.clone(), second], vec![1, 2])];
        assert_eq!(shares(&told, &both), wanted);
        told.handle_taken(&[&two], 0, "m");
        told.handle_taken(&both, 1, "m");
        told.handle_refused(&both, 2, "m", "550 nobody");
        let receipt = told.verdict(&both, "250", None).expect("two have it");
        assert_eq!(receipt.detail, "250; not taken for recipient 3: 550 nobody");
        // Through: whoever sends it again by hand means everybody.
        assert_eq!(shares(&told, &[&one]), [(vec![first], vec![0, 1, 2])]);
    }

    #[test]
    fn what_nobody_takes_is_refused_and_what_some_take_is_tried_again_for_the_others() {
        let order = samples::order("d1", 1, Level::Red);
        let told = Told::new(2, 3);
        for recipient in [0, 1] {
            told.handle_refused(&[&order], recipient, "m", "code 7");
        }
        assert!(matches!(told.verdict(&[&order], "said no", None), Err(DeliveryError::Never(_))));
        told.handle_taken(&[&order], 0, "m");
        for _ in 0..2 {
            told.handle_refused(&[&order], 1, "m", "code 7");
            assert!(matches!(told.verdict(&[&order], "OK", None), Err(DeliveryError::Retry(_))));
        }
        told.handle_refused(&[&order], 1, "m", "code 7");
        let receipt = told.verdict(&[&order], "OK", None).expect("one has it");
        assert_eq!(receipt.detail, "OK; not taken for recipient 2: code 7");
    }

    #[test]
    fn what_becomes_of_whom_is_told_once_for_each_message() {
        let told = Told::new(3, 2);
        let order = samples::order("d1", 1, Level::Red);
        told.handle_taken(&[&order], 0, "k1");
        told.handle_taken(&[&order], 1, "k2");
        told.handle_refused(&[&order], 2, "k2", "code 7");
        let at = Wall::from_millis(7_000);
        let news = |told: &Told| {
            let of = |heard: Addressed| {
                let standing = |(n, of): (u32, Standing)| (n, of.reach, of.why);
                (heard.key.to_string(), heard.recipients.into_iter().map(standing).collect::<Vec<_>>())
            };
            told.take_news(&"sms".into(), at).into_iter().map(of).collect::<Vec<_>>()
        };
        let accepted = |n| vec![(n, Reach::Accepted, String::new())];
        assert_eq!(news(&told), [("k1".to_owned(), accepted(0)), ("k2".to_owned(), accepted(1))]);
        // Left out for good only with the second refusal.
        told.handle_refused(&[&order], 2, "k3", "code 7");
        assert_eq!(news(&told), [("k3".to_owned(), vec![(2, Reach::LeftOut, "code 7".to_owned())])]);
        assert_eq!(news(&told), []);
    }

    #[test]
    fn memory_is_bounded() {
        let told = Told::new(1, 1);
        for n in 0..MOST + 5 {
            told.shares(&[&samples::order(&format!("d{n}"), 1, Level::Blue)]);
        }
        let memory = told.memory.lock().expect("nobody panics with it");
        assert_eq!((memory.orders.len(), memory.came.len()), (MOST, MOST));
    }
}
