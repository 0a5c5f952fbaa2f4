use insta::assert_snapshot;

use super::{FORMATS, shown};
use crate::support::server::Server;

#[test]
fn account_limits() {
    let server = Server::open();
    let registry = format!("--api-url={}/v1.0", server.url());
    let limits = |what: &str| {
        shown(&server.place, &["account", what, &registry], &FORMATS)
            .replace(&server.address().to_string(), "HOST")
    };
    assert_snapshot!(limits("resource-limits"), @r#"
    $ raxsr account resource-limits --api-url=http://HOST/v1.0 -f table
    +---------------------+-------+
    | Resource            | Limit |
    +=============================+
    | configuration_value |  1000 |
    | service             |   200 |
    +---------------------+-------+

    $ raxsr account resource-limits --api-url=http://HOST/v1.0 -f csv
    Resource,Limit
    configuration_value,1000
    service,200

    $ raxsr account resource-limits --api-url=http://HOST/v1.0 -f json
    [
      {
        "resource": "configuration_value",
        "limit": 1000
      },
      {
        "resource": "service",
        "limit": 200
      }
    ]

    $ raxsr account resource-limits --api-url=http://HOST/v1.0 -f yaml
    - resource: configuration_value
      limit: 1000
    - resource: service
      limit: 200

    $ raxsr account resource-limits --api-url=http://HOST/v1.0 -f html
    <table>
    <tr><th>Resource</th><th>Limit</th></tr>
    <tr><td>configuration_value</td><td>1000</td></tr>
    <tr><td>service</td><td>200</td></tr>
    </table>
    "#);
    assert_snapshot!(limits("rate-limits"), @r#"
    $ raxsr account rate-limits --api-url=http://HOST/v1.0 -f table
    +------+------------+------+------------------+
    | Rate | Window     | Used | Limit            |
    +=============================================+
    | /.*  | 24.0 hours |    6 | 9007199254740991 |
    +------+------------+------+------------------+

    $ raxsr account rate-limits --api-url=http://HOST/v1.0 -f csv
    Rate,Window,Used,Limit
    /.*,24.0 hours,7,9007199254740991

    $ raxsr account rate-limits --api-url=http://HOST/v1.0 -f json
    [
      {
        "rate": "/.*",
        "limit": 9007199254740991,
        "used": 8,
        "window": "24.0 hours"
      }
    ]

    $ raxsr account rate-limits --api-url=http://HOST/v1.0 -f yaml
    - rate: /.*
      limit: 9007199254740991
      used: 9
      window: 24.0 hours

    $ raxsr account rate-limits --api-url=http://HOST/v1.0 -f html
    <table>
    <tr><th>Rate</th><th>Window</th><th>Used</th><th>Limit</th></tr>
    <tr><td>/.*</td><td>24.0 hours</td><td>10</td><td>9007199254740991</td></tr>
    </table>
    "#);
}
