//! `text/xml+msrtc.pidf`: the presence document of Microsoft's servers before they had PIDF (MS-SIP §2.2.1).
//!
//! It tells two numbers, how reachable somebody is and what they do; as a [`Pidf`] they are one tuple.

use super::{
    Activity, Basic, Note, Pidf, PidfFault, Tuple,
    read::{Reader, text_of},
    xml::{Space, trim},
};

impl Reader<'_> {
    /// Reads the inside of `<presentity>`.
    pub(super) fn presentity(&mut self) -> Result<Pidf, PidfFault> {
        let entity = text_of(self.xml.take("uri"));
        let (mut availability, mut activity) = (None, None);
        let mut note = String::new();
        while let Some(element) = self.child()? {
            let aggregate = self.xml.take("aggregate").and_then(|number| trim(&number).parse().ok());
            match (element.space, element.local) {
                (Space::Presentity, "availability") => availability = aggregate,
                (Space::Presentity, "activity") => {
                    activity = aggregate;
                    note = text_of(self.xml.take("note"));
                }
                _ => {}
            }
            self.xml.skip()?;
        }
        let tuple = availability.map(|availability| Tuple {
            basic: Some(basic_of(availability)),
            activities: activity_of(activity.unwrap_or(0)).into_iter().collect(),
            notes: if note.is_empty() { Vec::new() } else { vec![Note { lang: None, text: note }] },
            ..Tuple::default()
        });
        Ok(Pidf { entity, tuples: tuple.into_iter().collect(), ..Pidf::default() })
    }
}

/// Below 100 nobody can be reached there.
fn basic_of(availability: u32) -> Basic {
    if availability < 100 { Basic::Closed } else { Basic::Open }
}

/// `None` for somebody who is active.
fn activity_of(activity: u32) -> Option<Activity> {
    Some(match activity {
        100..150 | 200..400 | 700..800 => Activity::Away,
        150..200 => Activity::Lunch,
        400..500 | 800..1000 => return None,
        500..600 => Activity::OnThePhone,
        600..700 => Activity::Busy,
        _ => Activity::Unknown,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pidf::{Limits, read};

    fn taken(inside: &str) -> Pidf {
        let document = format!(
            "<?xml version='1.0' encoding='utf-16'?><presentity \
             xmlns='http://schemas.microsoft.com/2002/09/sip/presence' uri='bob@corp.example'>{inside}</presentity>"
        );
        read(document.as_bytes(), &Limits::default()).expect("a document")
    }

    #[test]
    fn the_numbers_of_an_old_microsoft_server_are_read() {
        for (availability, activity, basic, expected) in [
            (300, 400, Basic::Open, None),
            (200, 800, Basic::Open, None),
            (300, 600, Basic::Open, Some(Activity::Busy)),
            (300, 500, Basic::Open, Some(Activity::OnThePhone)),
            (300, 150, Basic::Open, Some(Activity::Lunch)),
            (300, 100, Basic::Open, Some(Activity::Away)),
            (300, 300, Basic::Open, Some(Activity::Away)),
            (300, 700, Basic::Open, Some(Activity::Away)),
            // Nothing known is nothing available.
            (300, 0, Basic::Open, Some(Activity::Unknown)),
            (300, 1000, Basic::Open, Some(Activity::Unknown)),
            (0, 0, Basic::Closed, Some(Activity::Unknown)),
        ] {
            let pidf = taken(&format!(
                "<availability aggregate='{availability}' description=''/><activity aggregate='{activity}' \
                 note='back at noon'/><displayName displayName='Bob'/><devices><devicePresence epid='1'>\
                 <availability aggregate='0'/></devicePresence></devices>"
            ));
            assert_eq!(pidf.entity, "bob@corp.example");
            let [tuple] = &pidf.tuples[..] else { panic!("one tuple") };
            assert_eq!(tuple.basic, Some(basic), "{availability}");
            assert_eq!(tuple.activities.values.first(), expected.as_ref(), "{activity}");
            assert_eq!(tuple.notes[0].text, "back at noon");
        }
    }

    #[test]
    fn a_document_without_numbers_says_nothing() {
        for inside in
            ["", "<availability/>", "<availability aggregate='much'/>", "<activity aggregate='400'/>"]
        {
            assert!(taken(inside).tuples.is_empty(), "{inside}");
        }
        let unknown = taken("<availability aggregate='300'/>");
        assert_eq!(unknown.tuples[0].activities.values, [Activity::Unknown]);
    }
}
