//! What a running process reads again: certificates, authorities, accounts, and the parts of the settings that it can
//! take in while it runs.
//!
//! In: an order (`tombolo reload`, SIGHUP), or the time to look whether certificate files have changed. Out: what is in
//! use now, what only a restart brings in, and what could not be used; there everything stays as it was.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tombolo_admin::{CertificateAnswer, ReloadAnswer, Reloadable};
use tombolo_broker::Broker;
use tombolo_config::{Role, Settings, load_as, report};
use tombolo_edge::{LinkIdentity, XmppEdge};
use tombolo_net::{CertificateStore, Trust};
use tombolo_policy::Table;
use tombolo_runtime::Clock;

use crate::book::Book;

/// Where settings come from: a file with the role of the command line, or the embedded defaults.
pub type Source = Option<(PathBuf, Option<Role>)>;

/// The parts of a role that a reload concerns.
pub struct Files {
    source: Source,
    /// The settings in force.
    settings: Mutex<Settings>,
    clock: Clock,
    certificates: Arc<CertificateStore>,
    link: Option<LinkIdentity>,
    trusts: Vec<Trust>,
    policy: Arc<ArcSwap<Table>>,
    broker: Option<Arc<Broker>>,
    xmpp: Option<Arc<XmppEdge>>,
    book: Option<Arc<Book>>,
}

/// What [`Files`] is made of.
pub struct Parts {
    /// Our certificates by domain.
    pub certificates: Arc<CertificateStore>,
    /// What proves us on the link.
    pub link: Option<LinkIdentity>,
    /// Whom we trust, of each side.
    pub trusts: Vec<Trust>,
    /// The policy in force.
    pub policy: Arc<ArcSwap<Table>>,
    /// Whose shards ask the policy.
    pub broker: Option<Arc<Broker>>,
    /// Whose streams ask the policy.
    pub xmpp: Option<Arc<XmppEdge>>,
    /// The accounts.
    pub book: Option<Arc<Book>>,
}

impl Files {
    /// The files of a role that runs with these settings.
    pub fn new(source: Source, settings: Settings, clock: Clock, parts: Parts) -> Self {
        let Parts { certificates, link, trusts, policy, broker, xmpp, book } = parts;
        let settings = Mutex::new(settings);
        Self { source, settings, clock, certificates, link, trusts, policy, broker, xmpp, book }
    }

    /// Takes in certificates whose files have changed, and says so in the log.
    pub fn reload_changed(&self) {
        for store in self.stores() {
            let (taken, faults) = store.reload_changed();
            for domain in taken {
                tracing::info!(domain, "a changed certificate is in use");
            }
            for error in faults {
                tracing::error!(%error, "a changed certificate cannot be used; the old one stays in use");
            }
        }
    }

    /// Says in the log which certificates run out soon.
    pub fn warn_of_ends(&self) {
        for CertificateAnswer { name, days_left } in self.certificates() {
            if days_left < 0 {
                tracing::error!(certificate = name, days_left, "a certificate has run out");
            } else if days_left < DAYS_OF_WARNING {
                tracing::warn!(certificate = name, days_left, "a certificate runs out soon");
            }
        }
    }

    fn stores(&self) -> impl Iterator<Item = &CertificateStore> {
        self.link.iter().map(|link| &*link.certificates).chain([&*self.certificates])
    }

    /// The settings file and what it changes.
    fn reload_settings(&self, path: &Path, role: Option<Role>, answer: &mut ReloadAnswer) {
        let new = match load_as(path, role) {
            Ok(new) => new,
            Err(errors) => return answer.errors.push(report(&errors).trim_end().to_owned()),
        };
        let mut settings = self.settings.lock();
        let differences = settings.differences(&new);
        let mut running = settings.with_live_parts(&new);
        let is_live = |part| differences.iter().any(|other| other.part == part);
        // Put in force in any case: whoever missed an earlier one has it then.
        match running.try_policy_table(self.policy.load().generation() + 1) {
            Ok(table) => {
                self.set_policy(table);
                if is_live("partner") {
                    answer.taken.push(format!("{} partners", running.partners.len()));
                }
            }
            Err(conflict) => {
                answer.errors.push(format!("partner: {conflict}; restart for changed local domains"));
                return;
            }
        }
        for domain in &mut running.domains {
            let known = settings.domains.iter().find(|known| known.name == domain.name);
            if let (Some(files), Some(known)) = (&domain.certificate, known)
                && known.certificate != domain.certificate
                && let Err(error) =
                    self.certificates.load(domain.name.as_str(), &files.certificate, &files.key)
            {
                answer.errors.push(error.to_string());
                // The next reload sees the difference again.
                domain.certificate.clone_from(&known.certificate);
            }
        }
        let restart = differences.iter().filter(|difference| difference.needs_restart);
        answer.needs_restart.extend(restart.map(|difference| difference.part.to_owned()));
        *settings = running;
    }

    /// The accounts, where there is a built-in home.
    fn reload_accounts(&self, answer: &mut ReloadAnswer) {
        let (Some(book), Some(broker)) = (&self.book, &self.broker) else { return };
        if let Err(error) = book.check_is_there() {
            return answer.errors.push(error);
        }
        match book.load() {
            Ok(accounts) => {
                answer.taken.push("accounts".to_owned());
                broker.set_accounts(Book::for_broker(&accounts));
            }
            Err(error) => answer.errors.push(error.trim_end().to_owned()),
        }
    }

    fn set_policy(&self, table: Table) {
        let table = Arc::new(table);
        match &self.broker {
            Some(broker) => broker.set_policy(table),
            None => self.policy.store(table),
        }
        if let Some(xmpp) = &self.xmpp {
            xmpp.policy_changed();
        }
    }
}

impl Reloadable for Files {
    fn reload(&self) -> ReloadAnswer {
        let mut answer = ReloadAnswer::default();
        // Accounts first: the policy is judged by what they say.
        self.reload_accounts(&mut answer);
        if let Some((path, role)) = &self.source {
            self.reload_settings(path, *role, &mut answer);
        }
        let mut count = 0;
        for store in self.stores() {
            let faults = store.reload();
            count += store.expiries().len() - faults.len();
            answer.errors.extend(faults.iter().map(ToString::to_string));
        }
        answer.taken.push(format!("{count} certificates"));
        for trust in self.trusts.iter().chain(self.link.iter().map(|link| &link.trust)) {
            if let Err(error) = trust.reload() {
                answer.errors.push(error.to_string());
            }
        }
        answer.errors.dedup();
        for error in &answer.errors {
            tracing::error!(error, "not reloaded; what was there stays in use");
        }
        let (taken, restart) = (answer.taken.join(", "), answer.needs_restart.join(", "));
        tracing::info!(taken, restart, "reloaded");
        self.warn_of_ends();
        answer
    }

    fn certificates(&self) -> Vec<CertificateAnswer> {
        let wall = self.clock.now().wall;
        let link = self.link.iter().flat_map(|link| link.certificates.expiries());
        let mut ends: Vec<_> = link.chain(self.certificates.expiries()).collect();
        ends.sort_by_key(|(_, end)| *end);
        let answer = |(name, end): (String, Duration)| CertificateAnswer { name, days_left: days(wall, end) };
        ends.into_iter().map(answer).collect()
    }
}

/// Whole days from `now` to `end`; negative once it is over.
fn days(now: Duration, end: Duration) -> i64 {
    (end.as_secs() as i64 - now.as_secs() as i64).div_euclid(86_400)
}

/// How often the files of certificates are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often it is said that a certificate runs out.
pub const WARN_EVERY: Duration = Duration::from_secs(86_400);
/// From how many days on.
const DAYS_OF_WARNING: i64 = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_has_run_out_has_less_than_no_days() {
        let day = |count: u64| Duration::from_secs(86_400 * count);
        assert_eq!(days(day(10), day(40)), 30);
        assert_eq!(days(day(10), day(11) - Duration::from_secs(1)), 0);
        assert_eq!(days(day(10), day(10) - Duration::from_secs(1)), -1);
    }
}
