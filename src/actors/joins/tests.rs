use super::*;
use crate::actors::ca::CaError;
use crate::actors::host::{Runtimes, Spec, run_system, start_on};
use crate::actors::tokens::{AddToken, DEFAULT_TTL, Tokens, Uses};
use crate::audit::{EventContext, Spool, SpoolLimits};
use crate::model::{Labels, SharedClock, SystemClock};
use crate::store::SqliteStore;
use std::sync::Arc;

const SOON: Duration = Duration::from_secs(20);

/// Declines as many certificates as it was told to, and then gives them out.
struct Issuer {
    declines: usize,
}

impl Behavior for Issuer {
    const MAILBOX: usize = 4;
}

impl Handle<IssueHost> for Issuer {
    fn handle(&mut self, _: IssueHost, _: &mut Ctx<'_, Self>) -> Reply<Result<Issued, CaError>> {
        if self.declines > 0 {
            self.declines -= 1;
            return Reply::Now(Err(CaError::Declined("a name is no name".to_owned())));
        }
        let not_after = SystemClock::shared().now();
        Reply::Now(Ok(Issued {
            certificate: vec![1],
            not_after,
        }))
    }
}

fn trail(directory: &std::path::Path, clock: &SharedClock) -> Trail {
    let spool = Spool::open(directory, SpoolLimits::default(), clock.clone(), entropy::fill).unwrap();
    Trail {
        spool,
        context: EventContext::new(&ClusterName::new("test").unwrap(), clock.clone(), entropy::fill),
        node: NodeId::from_random([1; 16]),
        node_name: NodeName::new("auth-1").unwrap(),
    }
}

/// Joins with tokens of a real store, and a token of type db with one use.
async fn start(runtimes: &Runtimes, directory: &std::path::Path) -> (Address<JoinCluster>, Secret<String>) {
    let clock = SystemClock::shared();
    let store = SqliteStore::open(&directory.join("store.sqlite"), clock.clone()).unwrap();
    let trail = trail(&directory.join("spool"), &clock);
    let on = &runtimes.workers[0];
    let tokens = start_on(on, Spec::permanent("tokens"), Arc::new(|_| {}), move || {
        Tokens::new(Arc::default(), store.clone(), clock.clone())
    });
    let issuer = start_on(on, Spec::permanent("ca"), Arc::new(|_| {}), || Issuer { declines: 1 });
    let add = AddToken {
        by: "test".to_owned(),
        kinds: vec![NodeKind::Db],
        ttl: DEFAULT_TTL,
        uses: Uses::Left(1),
        value: None,
        labels: Labels::default(),
    };
    let added = tokens.address().ask(&Origin::outside("test"), add, SOON).await.unwrap();
    let joins = start_on(on, Spec::permanent("joins"), Arc::new(|_| {}), move || {
        Joins::new(
            (tokens.address(), tokens.address()),
            issuer.address(),
            ClusterName::new("test").unwrap(),
            TrustAnchors::default(),
            trail.clone(),
        )
    });
    (joins.address(), added.unwrap().token)
}

#[test]
fn a_certificate_that_is_declined_costs_no_use_of_the_token() {
    run_system(1, |runtimes| async move {
        let directory = tempfile::tempdir().unwrap();
        let (join, token) = start(&runtimes, directory.path()).await;
        let tries = |kinds: Vec<NodeKind>| {
            let ask = JoinCluster {
                token: token.clone(),
                name: NodeName::new("agent-1").unwrap(),
                kinds,
                csr: Vec::new(),
                hosts: Vec::new(),
            };
            let join = join.clone();
            async move { join.ask(&Origin::outside("test"), ask, SOON).await.unwrap() }
        };
        let refused = |answer: JoinAnswer, word: &str| match answer {
            JoinAnswer::Refused { why } => assert!(why.contains(word), "{word:?} is not in: {why}"),
            joined @ JoinAnswer::Joined { .. } => panic!("{joined:?}"),
        };
        refused(tries(Vec::new()).await, "no service");
        refused(tries(vec![NodeKind::Db, NodeKind::Auth]).await, "is of type db");
        refused(tries(vec![NodeKind::Db]).await, "a name is no name");
        let joined = tries(vec![NodeKind::Db]).await;
        assert!(matches!(joined, JoinAnswer::Joined { .. }), "{joined:?}");
        refused(tries(vec![NodeKind::Db]).await, "used up");
    });
}
