use super::*;
use crate::actors::address::{Message, Origin};
use crate::actors::host::{ActorRef, Runtimes, Spec, run_system, start_on};
use crate::model::clock::HeldClock;
use crate::store::SqliteStore;
use futures::future::join_all;

const SOON: Duration = Duration::from_secs(20);
const START: Timestamp = Timestamp::from_secs(1_700_000_000);
const STATIC: &str = "stat-0123456789abcdef";

struct Room {
    tokens: ActorRef<Tokens>,
    /// A second actor over the same store, as a second auth would be.
    other: ActorRef<Tokens>,
    clock: Arc<HeldClock>,
    store: Arc<SqliteStore>,
    _directory: tempfile::TempDir,
}

impl Room {
    fn start(runtimes: &Runtimes) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = HeldClock::at(START);
        let store = SqliteStore::open(&directory.path().join("store.sqlite"), clock.clone()).unwrap();
        let configured = Arc::new(vec![StaticToken {
            kinds: vec![NodeKind::Proxy],
            secret: Secret::new(STATIC.to_owned()),
        }]);
        let start = |name: &str| {
            let (configured, store, clock) = (configured.clone(), store.clone(), clock.clone());
            start_on(
                &runtimes.workers[0],
                Spec::permanent(name),
                Arc::new(|_| {}),
                move || Tokens::new(configured.clone(), store.clone(), clock.clone()),
            )
        };
        Self {
            tokens: start("tokens"),
            other: start("other-tokens"),
            clock: clock.clone(),
            store: store.clone(),
            _directory: directory,
        }
    }

    async fn ask<M: Message>(&self, message: M) -> M::Reply
    where
        Tokens: Handle<M>,
    {
        let address = self.tokens.address::<M>();
        address.ask(&Origin::outside("test"), message, SOON).await.unwrap()
    }

    async fn add(&self, uses: Uses) -> Secret<String> {
        self.ask(new_token(uses)).await.unwrap().token
    }

    async fn take(&self, token: &Secret<String>, kind: NodeKind) -> Result<Taken, TokenRefused> {
        self.ask(UseToken {
            token: token.clone(),
            kinds: vec![kind],
        })
        .await
    }

    async fn refused(&self, token: &Secret<String>) -> String {
        self.take(token, NodeKind::Db).await.unwrap_err().to_string()
    }

    fn pass(&self, time: Duration) {
        use crate::model::clock::Clock;
        self.clock.move_to(self.clock.now() + time);
    }

    async fn listed(&self) -> usize {
        let listed = self.ask(ListTokens).await.unwrap();
        listed
            .iter()
            .filter(|listed| matches!(listed, Listed::Stored(_)))
            .count()
    }
}

fn new_token(uses: Uses) -> AddToken {
    AddToken {
        by: "test".to_owned(),
        kinds: vec![NodeKind::Db],
        ttl: DEFAULT_TTL,
        uses,
        value: None,
        labels: Labels::parse("team=orders").unwrap(),
    }
}

fn chosen(value: &str) -> AddToken {
    AddToken {
        value: Some(Secret::new(value.to_owned())),
        ..new_token(Uses::Unlimited)
    }
}

fn in_a_room<F: Future<Output = ()>>(test: impl FnOnce(Room) -> F) {
    run_system(1, |runtimes| async move { test(Room::start(&runtimes)).await });
}

#[test]
fn a_token_is_32_hexadecimal_digits_admits_many_nodes_and_is_not_in_the_store() {
    in_a_room(|room| async move {
        let token = room.add(Uses::Unlimited).await;
        assert!(token.expose().len() == 32 && token.expose().bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(token.expose(), room.add(Uses::Unlimited).await.expose());
        for _ in 0..3 {
            room.take(&token, NodeKind::Db).await.unwrap();
        }
        for item in room.store.range("/", 100).await.unwrap() {
            let text = item.key.clone() + &String::from_utf8_lossy(&item.value);
            assert!(!text.contains(token.expose()), "{text}");
        }
    });
}

#[test]
fn a_token_that_nobody_added_is_refused_with_the_command_that_makes_one() {
    in_a_room(|room| async move {
        let said = room.refused(&Secret::new("0".repeat(32))).await;
        assert!(
            said.contains("not valid") && said.contains("ctl tokens add --type=db"),
            "{said}"
        );
    });
}

#[test]
fn a_token_of_one_type_admits_no_node_of_another_and_loses_no_use() {
    in_a_room(|room| async move {
        let token = room.add(Uses::Left(1)).await;
        let both = UseToken {
            token: token.clone(),
            kinds: vec![NodeKind::Db, NodeKind::Proxy],
        };
        for refused in [
            room.take(&token, NodeKind::Proxy).await,
            room.take(&token, NodeKind::Auth).await,
            room.ask(both).await,
        ] {
            let said = refused.unwrap_err().to_string();
            assert!(said.contains("is of type db, and this node runs"), "{said}");
        }
        let configured = Secret::new(STATIC.to_owned());
        assert!(matches!(
            room.take(&configured, NodeKind::Db).await,
            Err(TokenRefused::WrongType { .. })
        ));
        room.take(&token, NodeKind::Db).await.unwrap();
    });
}

#[test]
fn a_token_of_the_configuration_admits_nodes_for_ever() {
    in_a_room(|room| async move {
        room.pass(2 * TTL_MAX);
        let configured = Secret::new(STATIC.to_owned());
        room.take(&configured, NodeKind::Proxy).await.unwrap();
        let listed = room.ask(ListTokens).await.unwrap();
        assert!(matches!(&listed[..], [Listed::Configured { name, .. }] if name.to_string() == "stat****"));
    });
}

#[test]
fn a_token_ends_at_its_time_and_is_remembered_for_a_day() {
    in_a_room(|room| async move {
        let token = room.add(Uses::Unlimited).await;
        room.pass(DEFAULT_TTL - Duration::from_micros(1));
        room.take(&token, NodeKind::Db).await.unwrap();
        room.pass(Duration::from_micros(1));
        let said = room.refused(&token).await;
        assert!(said.contains("expired at 2023-11-14T22:43:20.000Z"), "{said}");
        assert_eq!(room.listed().await, 0);
        room.pass(KEPT_AFTER_END);
        assert!(room.refused(&token).await.contains("not valid"));
    });
}

#[test]
fn a_token_that_is_used_up_says_so_and_is_remembered_for_a_day() {
    in_a_room(|room| async move {
        let mut ask = new_token(Uses::Left(2));
        ask.ttl = TTL_MAX;
        let token = room.ask(ask).await.unwrap().token;
        room.take(&token, NodeKind::Db).await.unwrap();
        assert_eq!(room.listed().await, 1);
        room.take(&token, NodeKind::Db).await.unwrap();
        assert_eq!(room.listed().await, 0);
        let said = room.refused(&token).await;
        assert!(
            said.contains("used up") && said.contains("ctl tokens add --type=db"),
            "{said}"
        );
        room.pass(KEPT_AFTER_END);
        assert!(room.refused(&token).await.contains("not valid"));
    });
}

#[test]
fn of_nodes_that_race_for_the_last_uses_as_many_win_as_there_are_uses() {
    in_a_room(|room| async move {
        for uses in [1, 7] {
            let token = room.add(Uses::Left(uses)).await;
            let takers = [room.tokens.address::<UseToken>(), room.other.address::<UseToken>()];
            let tries = (0..40).map(|number: usize| {
                let (taker, token) = (takers[number % 2].clone(), token.clone());
                async move {
                    let kinds = vec![NodeKind::Db];
                    let take = UseToken { token, kinds };
                    taker.ask(&Origin::outside("test"), take, SOON).await.unwrap()
                }
            });
            let (won, lost): (Vec<_>, Vec<_>) = join_all(tries).await.into_iter().partition(Result::is_ok);
            assert_eq!(won.len() as u64, uses);
            for refused in lost {
                assert!(matches!(refused, Err(TokenRefused::UsedUp { .. })), "{refused:?}");
            }
        }
    });
}

#[test]
fn a_use_that_is_given_back_can_be_taken_again_unless_the_token_is_gone() {
    in_a_room(|room| async move {
        let token = room.add(Uses::Left(1)).await;
        let taken = room.take(&token, NodeKind::Db).await.unwrap();
        room.ask(GiveBackUse(taken)).await;
        let taken = room.take(&token, NodeKind::Db).await.unwrap();
        room.ask(RemoveToken(token.clone())).await.unwrap();
        room.ask(GiveBackUse(taken)).await;
        assert!(room.refused(&token).await.contains("not valid"));
    });
}

#[test]
fn a_token_is_removed_by_itself_or_by_what_is_shown_of_it() {
    in_a_room(|room| async move {
        for named in ["orders-0123456789", "orde", "orde****"] {
            let token = room.ask(chosen("orders-0123456789")).await.unwrap().token;
            let name = room.ask(RemoveToken(Secret::new(named.to_owned()))).await.unwrap();
            assert_eq!(name.to_string(), "orde****");
            assert!(room.refused(&token).await.contains("removed"));
        }
        let not = |said: Result<TokenName, TokenError>, word: &str| {
            let said = said.unwrap_err().to_string();
            assert!(said.contains(word), "{said}");
        };
        room.ask(chosen("orders-0123456789")).await.unwrap();
        not(room.ask(RemoveToken(Secret::new("ord".to_owned()))).await, "not found");
        not(
            room.ask(RemoveToken(Secret::new("orders-0".to_owned()))).await,
            "not found",
        );
        room.ask(chosen("orders-9876543210")).await.unwrap();
        not(
            room.ask(RemoveToken(Secret::new("orde".to_owned()))).await,
            "2 tokens begin",
        );
        not(
            room.ask(RemoveToken(Secret::new("stat".to_owned()))).await,
            "auth's configuration",
        );
        assert_eq!(room.listed().await, 2);
    });
}

#[test]
fn a_chosen_value_is_taken_once_and_again_when_the_first_has_ended() {
    in_a_room(|room| async move {
        room.ask(chosen("orders-0123456789")).await.unwrap();
        let said = room.ask(chosen("orders-0123456789")).await.unwrap_err().to_string();
        assert_eq!(
            said,
            "failed to create token (\"orde****\" already exists), please use another name"
        );
        assert!(matches!(room.ask(chosen(STATIC)).await, Err(TokenError::Exists(_))));
        room.pass(DEFAULT_TTL);
        let again = room.ask(chosen("orders-0123456789")).await.unwrap();
        room.take(&again.token, NodeKind::Db).await.unwrap();
    });
}

#[test]
fn what_makes_no_token_is_refused_with_its_rule() {
    in_a_room(|room| async move {
        let base = || new_token(Uses::Unlimited);
        let asks = [
            (chosen("short"), "16 to 256"),
            (chosen(&"x".repeat(257)), "16 to 256"),
            (chosen("/etc/postern/join-token"), "file's path"),
            (chosen("orders 0123456789"), "must not contain ' '"),
            (chosen("orders-$0123456789"), "must not contain '$'"),
            (
                AddToken {
                    kinds: Vec::new(),
                    ..base()
                },
                "at least one type",
            ),
            (
                AddToken {
                    kinds: vec![NodeKind::Auth],
                    ..base()
                },
                "type auth admits nothing",
            ),
            (
                AddToken {
                    uses: Uses::Left(0),
                    ..base()
                },
                "0 nodes",
            ),
            (
                AddToken {
                    ttl: Duration::from_millis(900),
                    ..base()
                },
                "1 s to 8784 h",
            ),
            (
                AddToken {
                    ttl: TTL_MAX * 2,
                    ..base()
                },
                "1 s to 8784 h",
            ),
            (
                AddToken {
                    labels: Labels::parse(&format!("a={}", "x".repeat(LABELS_BYTES_MAX))).unwrap(),
                    ..base()
                },
                "at most 4096",
            ),
        ];
        for (ask, rule) in asks {
            let said = room.ask(ask).await.unwrap_err().to_string();
            assert!(said.contains(rule), "{rule:?} is not in: {said}");
        }
        assert_eq!(room.listed().await, 0);
    });
}

#[test]
fn there_are_no_more_tokens_than_the_limit() {
    in_a_room(|room| async move {
        let value = bytes(&TokenRecord {
            name: TokenName::of(&Secret::new("full".to_owned())),
            kinds: vec![NodeKind::Db],
            labels: Labels::default(),
            created: START,
            created_by: "test".to_owned(),
            expires: START + DEFAULT_TTL,
            uses: Uses::Unlimited,
        })
        .unwrap();
        let fill = (0..TOKENS_MAX).map(|number| room.store.put(&key_of(&number.to_string()), value.clone(), None));
        assert!(join_all(fill).await.iter().all(Result::is_ok));
        let refused = room.ask(new_token(Uses::Unlimited)).await;
        assert!(matches!(refused, Err(TokenError::TooMany)), "{refused:?}");
    });
}
