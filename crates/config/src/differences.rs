//! What a reload would change, and what of it only a restart brings in.

use crate::settings::{Role, Settings};

/// One part of the settings that differs between two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Difference {
    /// The part: a table of the file, or a key at its top.
    pub part: &'static str,
    /// A running process cannot take it in.
    pub needs_restart: bool,
}

impl Settings {
    /// What differs in `new`, in the order of the file. A running process takes in the partners and the files of the
    /// domains' certificates; everything else needs a restart. (What stands in files that the settings name, certificates,
    /// authorities and accounts, is read again whether or not the settings differ.)
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let domains = |settings: &Self| {
            let names = settings.domains.iter();
            let names =
                names.map(|domain| (domain.name.clone(), domain.home.clone(), domain.certificate.is_some()));
            names.collect::<Vec<_>>()
        };
        // An edge is given its table by its gateway.
        let is_edge = self.role == Role::Edge;
        let rows = [
            ("role", self.role != new.role, true),
            ("data_dir", self.data_dir != new.data_dir, true),
            ("domain", self.domains != new.domains, domains(self) != domains(new)),
            ("xmpp", self.xmpp != new.xmpp || self.ping_after != new.ping_after, true),
            ("sip", self.sip != new.sip, true),
            ("partner", self.partners != new.partners && !is_edge, false),
            ("dns", self.dns != new.dns, true),
            ("link", self.link != new.link, true),
            ("store", self.store != new.store, true),
            ("accounts", self.accounts != new.accounts, true),
            ("memory", self.memory != new.memory, true),
            ("admin", self.admin != new.admin, true),
            ("log", self.log != new.log, true),
        ];
        rows.into_iter()
            .filter(|(_, differs, _)| *differs)
            .map(|(part, _, needs_restart)| Difference { part, needs_restart })
            .collect()
    }

    /// These settings with what a running process takes in of `new`: the partners, and the certificate files of domains
    /// that have some in both.
    pub fn with_live_parts(&self, new: &Self) -> Self {
        let mut settings = self.clone();
        settings.partners.clone_from(&new.partners);
        for domain in &mut settings.domains {
            let same = new.domains.iter().find(|other| other.name == domain.name);
            if let (Some(files), Some(newer)) =
                (&mut domain.certificate, same.and_then(|same| same.certificate.clone()))
            {
                *files = newer;
            }
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::embedded_defaults;

    #[test]
    fn a_reload_is_told_apart_from_a_restart() {
        let old = embedded_defaults(Path::new("d"));
        assert_eq!(old.differences(&old), []);
        let mut new = old.clone();
        new.partners.clear();
        if let Some(xmpp) = &mut new.xmpp {
            xmpp.limits.depth += 1;
        }
        let live = |part| Difference { part, needs_restart: false };
        if let Some(files) = &mut new.domains[0].certificate {
            files.key = "another.key".into();
        }
        let restart = |part| Difference { part, needs_restart: true };
        assert_eq!(old.differences(&new), [live("domain"), restart("xmpp"), live("partner")]);
        let running = old.with_live_parts(&new);
        assert_eq!((&running.partners, &running.domains), (&new.partners, &new.domains));
        assert_eq!(running.differences(&new), [restart("xmpp")], "what needs a restart is as it was");
        new.domains[0].certificate = None;
        assert_eq!(old.differences(&new)[0], restart("domain"));
        assert_eq!(old.with_live_parts(&new).domains, old.domains);
    }
}
