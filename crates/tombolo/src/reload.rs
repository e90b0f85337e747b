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
use tombolo_config::{Checked, Role, Settings, load, report};
use tombolo_edge::{LinkIdentity, XmppEdge};
use tombolo_net::{CertificateStore, Expiry, Replace, Resolver, Trust, date};
use tombolo_policy::Table;
use tombolo_runtime::Clock;
use tombolo_telemetry::{Health, Part, PartState};

use crate::{
    book::Book,
    expiry::{self, ExpiryWatch, Notice, Stage},
    notify::MANAGER,
};

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
    resolver: Resolver,
    trusts: Vec<Trust>,
    policy: Arc<ArcSwap<Table>>,
    broker: Option<Arc<Broker>>,
    xmpp: Option<Arc<XmppEdge>>,
    book: Option<Arc<Book>>,
    watch: Mutex<ExpiryWatch>,
    /// The part `certificates` of the process's health.
    health: Part,
}

/// What [`Files`] is made of.
pub struct Parts {
    /// Our certificates by domain.
    pub certificates: Arc<CertificateStore>,
    /// What proves us on the link.
    pub link: Option<LinkIdentity>,
    /// Follows the machine's name servers.
    pub resolver: Resolver,
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
    /// Where it is told how our certificates are.
    pub health: Health,
}

impl Files {
    /// The files of a role that runs with these settings.
    pub fn new(source: Source, settings: Settings, clock: Clock, parts: Parts) -> Self {
        let Parts { certificates, link, resolver, trusts, policy, broker, xmpp, book, health } = parts;
        let settings = Mutex::new(settings);
        let (watch, health) = (Mutex::default(), health.part("certificates"));
        Self {
            source,
            settings,
            clock,
            certificates,
            link,
            resolver,
            trusts,
            policy,
            broker,
            xmpp,
            book,
            watch,
            health,
        }
    }

    /// Takes in certificates whose files have changed, and says so in the log.
    pub fn reload_changed(&self) {
        for store in self.stores() {
            let (taken, faults) = store.reload_changed(self.clock.now().wall);
            for domain in taken {
                tracing::info!(domain, "a changed certificate is in use");
                // Partners may have been lost because the old one had run out.
                if let Some(broker) = &self.broker {
                    broker.retry_all_of(&domain);
                }
            }
            for error in faults {
                tracing::error!(%error, "a changed certificate cannot be used; the old one stays in use");
            }
        }
    }

    /// Says in the log and in the health of the process which certificates run out.
    pub fn watch_ends(&self) {
        let (expiries, now) = (self.expiries(), self.clock.now().wall);
        for Notice { expiry, stage } in self.watch.lock().notices(&expiries, now) {
            let Expiry { name, file, until } = expiry;
            let (file, until) = (file.display(), date(until));
            match stage {
                Stage::Ended => {
                    tracing::error!(certificate = name, %file, until, "a certificate has expired; peers refuse it");
                }
                Stage::Day | Stage::Days => {
                    tracing::error!(certificate = name, %file, until, "a certificate expires soon")
                }
                Stage::Fortnight | Stage::Month => {
                    tracing::warn!(certificate = name, %file, until, "a certificate expires soon");
                }
            }
        }
        let faults: Vec<String> = self.stores().flat_map(CertificateStore::faults).collect();
        let summary = expiry::summary(&expiries, now);
        let has_ended = matches!(summary, Some((Stage::Ended, _)));
        let mut notes: Vec<String> = summary.into_iter().map(|(_, note)| note).collect();
        if !faults.is_empty() {
            notes.push(format!("a changed file is not in use: {}", faults.join("; ")));
        }
        match notes.is_empty() {
            true => self.health.set_up(),
            false if has_ended => self.health.set(PartState::Degraded, notes.join("; ")),
            false => self.health.set(PartState::Noted, notes.join("; ")),
        };
    }

    /// The first to run out first.
    fn expiries(&self) -> Vec<Expiry> {
        let mut expiries: Vec<Expiry> = self.stores().flat_map(CertificateStore::expiries).collect();
        expiries.sort_by_key(|expiry| expiry.until);
        expiries
    }

    fn stores(&self) -> impl Iterator<Item = &CertificateStore> {
        self.link.iter().map(|link| &*link.certificates).chain([&*self.certificates])
    }

    /// The settings file and what it changes.
    fn reload_settings(&self, path: &Path, role: Option<Role>, replace: Replace, answer: &mut ReloadAnswer) {
        let new = match load(path, role, self.clock.now().wall) {
            Ok(Checked { settings, .. }) => settings,
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
                && let Err(error) = self.certificates.replace(
                    domain.name.as_str(),
                    &files.certificate,
                    &files.key,
                    replace,
                    self.clock.now().wall,
                )
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
    fn reload_accounts(&self, is_forced: bool, answer: &mut ReloadAnswer) {
        let (Some(book), Some(broker)) = (&self.book, &self.broker) else { return };
        let loaded = if is_forced { book.load() } else { book.load_checked() };
        match loaded {
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
    fn reload(&self, is_forced: bool) -> ReloadAnswer {
        MANAGER.reloading();
        let mut answer = ReloadAnswer::default();
        let replace = if is_forced { Replace::ByAny } else { Replace::OnlyByValid };
        // Accounts first: the policy is judged by what they say.
        self.reload_accounts(is_forced, &mut answer);
        if let Some((path, role)) = &self.source {
            self.reload_settings(path, *role, replace, &mut answer);
        }
        let mut count = 0;
        for store in self.stores() {
            let faults = store.reload(replace, self.clock.now().wall);
            count += store.expiries().len() - faults.len();
            answer.errors.extend(faults.iter().map(ToString::to_string));
        }
        answer.taken.push(format!("{count} certificates"));
        for trust in self.trusts.iter().chain(self.link.iter().map(|link| &link.trust)) {
            if let Err(error) = trust.reload() {
                answer.errors.push(error.to_string());
            }
        }
        self.resolver.reload();
        answer.errors.dedup();
        for error in &answer.errors {
            tracing::error!(error, "not reloaded; what was there stays in use");
        }
        let (taken, restart) = (answer.taken.join(", "), answer.needs_restart.join(", "));
        tracing::info!(taken, restart, "reloaded");
        self.watch_ends();
        MANAGER.ready();
        answer
    }

    fn certificates(&self) -> Vec<CertificateAnswer> {
        let wall = self.clock.now().wall;
        let answer = |expiry: Expiry| CertificateAnswer {
            name: expiry.name,
            days_left: days(wall, expiry.until),
            until: date(expiry.until),
            file: expiry.file.display().to_string(),
        };
        self.expiries().into_iter().map(answer).collect()
    }
}

/// Whole days from `now` to `end`; negative once it is over.
fn days(now: Duration, end: Duration) -> i64 {
    (end.as_secs() as i64 - now.as_secs() as i64).div_euclid(86_400)
}

/// How often the files of certificates are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked whether a certificate runs out.
pub const WATCH_EVERY: Duration = Duration::from_secs(60);

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
