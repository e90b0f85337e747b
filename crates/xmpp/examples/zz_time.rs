use std::time::Instant;
use std::hint::black_box;
use tombolo_xmpp::{xml::*, stanza::*, jid::*, framer::*, write};
fn time(name: &str, f: impl Fn()) { for _ in 0..20000 { f() } let n=300_000; let t=Instant::now(); for _ in 0..n { f() } println!("{name}: {:?}", t.elapsed()/n); }
fn main(){
 let xml: &[u8] = b"<presence from='juliet@example.com/balcony' to='romeo@example.net' id='a1b2c3d4' xml:lang='en'><show>away</show><status>be right back, or so I hope, my dear Montague of Verona</status><priority>5</priority><idle xmlns='urn:xmpp:idle:1' since='1969-07-21T02:56:15Z'/><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='http://example.com' ver='q07IKJEyjvHSyhy//CH0CxmKi8w='/></presence>";
 println!("{}", xml.len());
 let scope={let mut s=Scope::server(); s.declare("stream","http://etherx.jabber.org/streams"); s.declare("db","jabber:server:dialback"); s};
 time("gate", || { black_box(check(black_box(xml), &scope, &XmlLimits::UNAUTHENTICATED).unwrap()); });
 time("head", || { black_box(StanzaHead::read(black_box(xml)).unwrap()); });
 time("presence", || { black_box(PresenceStanza::read(black_box(xml)).unwrap()); });
 time("jid", || { black_box(Jid::parse(black_box("juliet@example.com/balcony")).unwrap()); });
 time("jid non-ascii", || { black_box(Jid::parse(black_box("tschüss@bücher.example/balcony")).unwrap()); });
 let many: Vec<u8> = xml.repeat(100);
 let h = b"<stream:stream xmlns='jabber:server'>";
 let n=2000; let t=Instant::now(); for _ in 0..n { let mut f=Framer::new(XmlLimits::UNAUTHENTICATED); f.push(h); f.push(&many); while let Ok(Some(x))=f.next_frame() { black_box(x);} } println!("framer per stanza: {:?}", t.elapsed()/n/100);
 let mut out=Vec::with_capacity(1<<20); let inner=&xml[100..300];
 let n=300000; let t=Instant::now(); for _ in 0..n { out.clear(); write::presence(&mut out,&write::Head{from:"juliet@example.com/balcony",to:"romeo@example.net",id:None,lang:None},PresenceKind::Available,inner); black_box(&out);} println!("write: {:?}", t.elapsed()/n);
 // whole stream
 stream(xml);
}
fn stream(xml:&[u8]){
 use tombolo_xmpp::{stream::*,dialback::*};
 use std::sync::Arc;
 #[derive(Debug)] struct C; impl PeerCertificate for C { fn proves(&self,_:&Domain)->bool{true} }
 struct P; impl StreamPolicy for P { fn is_served(&self,_:&Domain)->bool{true} fn terms(&self,_:&Domain,_:&Domain)->Option<PartnerTerms>{Some(PartnerTerms::CERTIFICATE)} }
 let now=Instant::now();
 let mut s=InboundStream::new(Arc::new(InboundSettings{limits:StreamLimits::default(),secrets:DialbackSecrets::new(b"x")}),TlsStart::Direct,StreamIds::new([0;32]),now);
 s.handle_tls_established(TlsFacts{certificate:Arc::new(C)},now,&P);
 let h="<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' from='example.com' to='example.net' version='1.0'>";
 s.handle_input(h.as_bytes(),now,&P); s.handle_input(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>",now,&P); s.handle_input(h.as_bytes(),now,&P);
 let many=xml.repeat(40); let n=5000; let mut c=0; let t=Instant::now();
 for _ in 0..n { s.handle_input(&many,now,&P); while let Some(e)=s.poll_event(){ if let StreamEvent::Stanza(x)=e {c+=1; black_box(x);} } }
 println!("stream per stanza: {:?} ({c})", t.elapsed()/n/40);
}
