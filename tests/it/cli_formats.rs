//! Every command of `raxsr`, in every format.

use insta::assert_snapshot;
use service_registry_wrapper::model::{InstanceId, Registration};
use service_registry_wrapper::registry::{Access, Claim, IfTaken, connect};

use crate::support::server::Server;
use crate::support::{Place, still};

const FORMATS: [&str; 5] = ["table", "csv", "json", "yaml", "html"];

/// What a command shows in each of these formats.
fn shown(place: &Place, words: &[&str], formats: &[&str]) -> String {
    let one = |format: &&str| {
        let output = place.raxsr(&[words, &["-f", format]].concat());
        assert!(output.status.success(), "{output:?}");
        let text = still(&String::from_utf8(output.stdout).unwrap());
        format!("$ raxsr {} -f {format}\n{text}", words.join(" "))
    };
    formats.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// A place with services that nobody keeps: what is shown of them does not change.
fn with_services() -> Place {
    let place = Place::new();
    let nasty = r#"{"host": "::1", "port": "5432", "note": "a \"quote\", <b>\n=cmd() 😀"}"#;
    for (id, tags, metadata) in [
        ("db-1", r#"["db", "=cmd()"]"#, nasty),
        ("web-1", r#"["www"]"#, r#"{"host": "10.0.0.7", "port": "80"}"#),
    ] {
        let json =
            format!(r#"{{"id": "{id}", "heartbeat_timeout": 120, "tags": {tags}, "metadata": {metadata}}}"#);
        let registration: Registration = serde_json::from_str(&json).unwrap();
        let (instance, holder) = (InstanceId::unique(), "the test".to_owned());
        let claim = Claim { instance, holder, if_taken: IfTaken::Refuse };
        let registry = connect(&place.url().parse().unwrap(), &Access::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(registry.register(&registration, &claim)).unwrap();
    }
    place
}

#[test]
fn services_list() {
    let place = with_services();
    assert_snapshot!(shown(&place, &["services", "list"], &FORMATS), @r#"
    $ raxsr services list -f table
    +------------+-------------------+-----------+------------+--------------------------------------------------------+
    | Service ID | Heartbeat Timeout | Last Seen | Tags       | Metadata                                               |
    +==================================================================================================================+
    | db-1       |               120 |           | db, =cmd() | host: ::1, note: a "quote", <b>\n=cmd() 😀, port: 5432 |
    | web-1      |               120 |           | www        | host: 10.0.0.7, port: 80                               |
    +------------+-------------------+-----------+------------+--------------------------------------------------------+

    Limit: 100

    $ raxsr services list -f csv
    Service ID,Heartbeat Timeout,Last Seen,Tags,Metadata
    db-1,120,,"db, =cmd()","host: ::1, note: a ""quote"", <b>
    =cmd() 😀, port: 5432"
    web-1,120,,www,"host: 10.0.0.7, port: 80"

    $ raxsr services list -f json
    {
      "values": [
        {
          "id": "db-1",
          "heartbeat_timeout": 120,
          "tags": [
            "db",
            "=cmd()"
          ],
          "metadata": {
            "host": "::1",
            "note": "a \"quote\", <b>\n=cmd() 😀",
            "port": "5432"
          },
          "last_seen": null
        },
        {
          "id": "web-1",
          "heartbeat_timeout": 120,
          "tags": [
            "www"
          ],
          "metadata": {
            "host": "10.0.0.7",
            "port": "80"
          },
          "last_seen": null
        }
      ],
      "metadata": {
        "count": 2,
        "limit": 100,
        "next_marker": null
      }
    }

    $ raxsr services list -f yaml
    values:
    - id: db-1
      heartbeat_timeout: 120
      tags:
      - db
      - =cmd()
      metadata:
        host: ::1
        note: |-
          a "quote", <b>
          =cmd() 😀
        port: '5432'
      last_seen: null
    - id: web-1
      heartbeat_timeout: 120
      tags:
      - www
      metadata:
        host: 10.0.0.7
        port: '80'
      last_seen: null
    metadata:
      count: 2
      limit: 100
      next_marker: null

    $ raxsr services list -f html
    <table>
    <tr><th>Service ID</th><th>Heartbeat Timeout</th><th>Last Seen</th><th>Tags</th><th>Metadata</th></tr>
    <tr><td>db-1</td><td>120</td><td></td><td>db, =cmd()</td><td>host: ::1, note: a &quot;quote&quot;, &lt;b&gt;<br>=cmd() 😀, port: 5432</td></tr>
    <tr><td>web-1</td><td>120</td><td></td><td>www</td><td>host: 10.0.0.7, port: 80</td></tr>
    </table>
    "#);
}

#[test]
fn services_get() {
    let place = with_services();
    assert_snapshot!(shown(&place, &["services", "get", "--id=web-1"], &FORMATS), @r#"
    $ raxsr services get --id=web-1 -f table
    +-------------------+--------------------------+
    | Field             | Value                    |
    +==============================================+
    | Service ID        | web-1                    |
    | Heartbeat Timeout | 120                      |
    | Last Seen         |                          |
    | Tags              | www                      |
    | Metadata          | host: 10.0.0.7, port: 80 |
    +-------------------+--------------------------+

    $ raxsr services get --id=web-1 -f csv
    Service ID,Heartbeat Timeout,Last Seen,Tags,Metadata
    web-1,120,,www,"host: 10.0.0.7, port: 80"

    $ raxsr services get --id=web-1 -f json
    {
      "id": "web-1",
      "heartbeat_timeout": 120,
      "tags": [
        "www"
      ],
      "metadata": {
        "host": "10.0.0.7",
        "port": "80"
      },
      "last_seen": null
    }

    $ raxsr services get --id=web-1 -f yaml
    id: web-1
    heartbeat_timeout: 120
    tags:
    - www
    metadata:
      host: 10.0.0.7
      port: '80'
    last_seen: null

    $ raxsr services get --id=web-1 -f html
    <table>
    <tr><th>Service ID</th><th>Heartbeat Timeout</th><th>Last Seen</th><th>Tags</th><th>Metadata</th></tr>
    <tr><td>web-1</td><td>120</td><td></td><td>www</td><td>host: 10.0.0.7, port: 80</td></tr>
    </table>
    "#);
}

#[test]
fn services_resolve() {
    let place = with_services();
    let formats = [&FORMATS[..], &["env", "hosts", "haproxy", "nginx"]].concat();
    assert_snapshot!(shown(&place, &["services", "resolve", "--tag=db"], &formats), @r#"
    $ raxsr services resolve --tag=db -f table
    +------------+------------+------+------+------------+
    | Service ID | Address    | Host | Port | Tags       |
    +====================================================+
    | db-1       | [::1]:5432 | ::1  | 5432 | db, =cmd() |
    +------------+------------+------+------+------------+

    $ raxsr services resolve --tag=db -f csv
    Service ID,Address,Host,Port,Tags
    db-1,[::1]:5432,::1,5432,"db, =cmd()"

    $ raxsr services resolve --tag=db -f json
    [
      {
        "id": "db-1",
        "address": "[::1]:5432",
        "host": "::1",
        "port": "5432",
        "tags": [
          "db",
          "=cmd()"
        ]
      }
    ]

    $ raxsr services resolve --tag=db -f yaml
    - id: db-1
      address: '[::1]:5432'
      host: ::1
      port: '5432'
      tags:
      - db
      - =cmd()

    $ raxsr services resolve --tag=db -f html
    <table>
    <tr><th>Service ID</th><th>Address</th><th>Host</th><th>Port</th><th>Tags</th></tr>
    <tr><td>db-1</td><td>[::1]:5432</td><td>::1</td><td>5432</td><td>db, =cmd()</td></tr>
    </table>

    $ raxsr services resolve --tag=db -f env
    DB_ADDRESS='[::1]:5432'
    DB_HOST='::1'
    DB_PORT='5432'
    DB_1_ADDRESS='[::1]:5432'
    DB_1_HOST='::1'
    DB_1_PORT='5432'
    DB_ADDRESSES='[::1]:5432'
    DB_COUNT='1'

    $ raxsr services resolve --tag=db -f hosts
    ::1	db-1

    $ raxsr services resolve --tag=db -f haproxy
    server db-1 [::1]:5432 check

    $ raxsr services resolve --tag=db -f nginx
    server [::1]:5432;
    "#);
}

#[test]
#[expect(clippy::too_many_lines, reason = "what it shows is that long")]
fn events_list() {
    let place = with_services();
    assert!(place.raxsr(&["services", "remove", "web-1"]).status.success());
    set(&place, "/prod/key", "1");
    set(&place, "/prod/key", "2");
    assert!(place.raxsr(&["configuration", "remove", "/prod/key"]).status.success());
    assert_snapshot!(shown(&place, &["events", "list"], &FORMATS), @r#"
    $ raxsr events list -f table
    +--------------------------------------+---------------------+----------------------------+------------------------------------------------------------------+
    | Event ID                             | Timestamp           | Event Type                 | Payload                                                          |
    +============================================================================================================================================================+
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | configuration_value.remove | configuration_value_id: /prod/key                                |
    |                                      |                     |                            | old_value: 2                                                     |
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | configuration_value.update | configuration_value_id: /prod/key                                |
    |                                      |                     |                            | old_value: 1                                                     |
    |                                      |                     |                            | new_value: 2                                                     |
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | configuration_value.update | configuration_value_id: /prod/key                                |
    |                                      |                     |                            | old_value:                                                       |
    |                                      |                     |                            | new_value: 1                                                     |
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | service.remove             | id: web-1                                                        |
    |                                      |                     |                            | heartbeat_timeout: 120                                           |
    |                                      |                     |                            | tags: www                                                        |
    |                                      |                     |                            | metadata: host: 10.0.0.7, port: 80                               |
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | service.join               | id: web-1                                                        |
    |                                      |                     |                            | heartbeat_timeout: 120                                           |
    |                                      |                     |                            | tags: www                                                        |
    |                                      |                     |                            | metadata: host: 10.0.0.7, port: 80                               |
    | 00000000-0000-0000-0000-000000000000 | 0000-00-00 00:00:00 | service.join               | id: db-1                                                         |
    |                                      |                     |                            | heartbeat_timeout: 120                                           |
    |                                      |                     |                            | tags: db, =cmd()                                                 |
    |                                      |                     |                            | metadata: host: ::1, note: a "quote", <b>\n=cmd() 😀, port: 5432 |
    +--------------------------------------+---------------------+----------------------------+------------------------------------------------------------------+

    Limit: 100

    $ raxsr events list -f csv
    Event ID,Timestamp,Event Type,Payload
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,configuration_value.remove,"configuration_value_id: /prod/key
    old_value: 2"
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,configuration_value.update,"configuration_value_id: /prod/key
    old_value: 1
    new_value: 2"
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,configuration_value.update,"configuration_value_id: /prod/key
    old_value: 
    new_value: 1"
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,service.remove,"id: web-1
    heartbeat_timeout: 120
    tags: www
    metadata: host: 10.0.0.7, port: 80"
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,service.join,"id: web-1
    heartbeat_timeout: 120
    tags: www
    metadata: host: 10.0.0.7, port: 80"
    00000000-0000-0000-0000-000000000000,0000-00-00T00:00:00.000Z,service.join,"id: db-1
    heartbeat_timeout: 120
    tags: db, =cmd()
    metadata: host: ::1, note: a ""quote"", <b>
    =cmd() 😀, port: 5432"

    $ raxsr events list -f json
    {
      "values": [
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "configuration_value.remove",
          "payload": {
            "old_value": "2",
            "configuration_value_id": "/prod/key"
          }
        },
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "configuration_value.update",
          "payload": {
            "old_value": "1",
            "new_value": "2",
            "configuration_value_id": "/prod/key"
          }
        },
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "configuration_value.update",
          "payload": {
            "old_value": null,
            "new_value": "1",
            "configuration_value_id": "/prod/key"
          }
        },
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "service.remove",
          "payload": {
            "id": "web-1",
            "heartbeat_timeout": 120,
            "tags": [
              "www"
            ],
            "metadata": {
              "host": "10.0.0.7",
              "port": "80"
            }
          }
        },
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "service.join",
          "payload": {
            "id": "web-1",
            "heartbeat_timeout": 120,
            "tags": [
              "www"
            ],
            "metadata": {
              "host": "10.0.0.7",
              "port": "80"
            }
          }
        },
        {
          "id": "00000000-0000-0000-0000-000000000000",
          "timestamp": "0000-00-00T00:00:00.000Z",
          "type": "service.join",
          "payload": {
            "id": "db-1",
            "heartbeat_timeout": 120,
            "tags": [
              "db",
              "=cmd()"
            ],
            "metadata": {
              "host": "::1",
              "note": "a \"quote\", <b>\n=cmd() 😀",
              "port": "5432"
            }
          }
        }
      ],
      "metadata": {
        "count": 6,
        "limit": 100,
        "next_marker": null
      }
    }

    $ raxsr events list -f yaml
    values:
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: configuration_value.remove
      payload:
        old_value: '2'
        configuration_value_id: /prod/key
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: configuration_value.update
      payload:
        old_value: '1'
        new_value: '2'
        configuration_value_id: /prod/key
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: configuration_value.update
      payload:
        old_value: null
        new_value: '1'
        configuration_value_id: /prod/key
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: service.remove
      payload:
        id: web-1
        heartbeat_timeout: 120
        tags:
        - www
        metadata:
          host: 10.0.0.7
          port: '80'
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: service.join
      payload:
        id: web-1
        heartbeat_timeout: 120
        tags:
        - www
        metadata:
          host: 10.0.0.7
          port: '80'
    - id: 00000000-0000-0000-0000-000000000000
      timestamp: 0000-00-00T00:00:00.000Z
      type: service.join
      payload:
        id: db-1
        heartbeat_timeout: 120
        tags:
        - db
        - =cmd()
        metadata:
          host: ::1
          note: |-
            a "quote", <b>
            =cmd() 😀
          port: '5432'
    metadata:
      count: 6
      limit: 100
      next_marker: null

    $ raxsr events list -f html
    <table>
    <tr><th>Event ID</th><th>Timestamp</th><th>Event Type</th><th>Payload</th></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>configuration_value.remove</td><td>configuration_value_id: /prod/key<br>old_value: 2</td></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>configuration_value.update</td><td>configuration_value_id: /prod/key<br>old_value: 1<br>new_value: 2</td></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>configuration_value.update</td><td>configuration_value_id: /prod/key<br>old_value: <br>new_value: 1</td></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>service.remove</td><td>id: web-1<br>heartbeat_timeout: 120<br>tags: www<br>metadata: host: 10.0.0.7, port: 80</td></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>service.join</td><td>id: web-1<br>heartbeat_timeout: 120<br>tags: www<br>metadata: host: 10.0.0.7, port: 80</td></tr>
    <tr><td>00000000-0000-0000-0000-000000000000</td><td>0000-00-00T00:00:00.000Z</td><td>service.join</td><td>id: db-1<br>heartbeat_timeout: 120<br>tags: db, =cmd()<br>metadata: host: ::1, note: a &quot;quote&quot;, &lt;b&gt;<br>=cmd() 😀, port: 5432</td></tr>
    </table>
    "#);
}

fn set(place: &Place, id: &str, value: &str) {
    assert!(place.raxsr(&["configuration", "set", id, value]).status.success());
}

#[test]
fn configuration_list_get_and_export() {
    let place = Place::new();
    set(&place, "/prod/motd", "two\nlines, \"quoted\" <b>=cmd()</b> \u{1b}[31m 😀");
    set(&place, "/prod/port", "8000");
    assert_snapshot!(shown(&place, &["configuration", "list", "--namespace=prod"], &FORMATS), @r#"
    $ raxsr configuration list --namespace=prod -f table
    +------------+--------------------------------------------------+
    | ID         | Value                                            |
    +===============================================================+
    | /prod/motd | two\nlines, "quoted" <b>=cmd()</b> \u{1b}[31m 😀 |
    | /prod/port | 8000                                             |
    +------------+--------------------------------------------------+

    Limit: 100

    $ raxsr configuration list --namespace=prod -f csv
    ID,Value
    /prod/motd,"two
    lines, ""quoted"" <b>=cmd()</b> [31m 😀"
    /prod/port,8000

    $ raxsr configuration list --namespace=prod -f json
    {
      "values": [
        {
          "id": "/prod/motd",
          "value": "two\nlines, \"quoted\" <b>=cmd()</b> \u001b[31m 😀"
        },
        {
          "id": "/prod/port",
          "value": "8000"
        }
      ],
      "metadata": {
        "count": 2,
        "limit": 100,
        "next_marker": null
      }
    }

    $ raxsr configuration list --namespace=prod -f yaml
    values:
    - id: /prod/motd
      value: "two\nlines, \"quoted\" <b>=cmd()</b> \e[31m 😀"
    - id: /prod/port
      value: '8000'
    metadata:
      count: 2
      limit: 100
      next_marker: null

    $ raxsr configuration list --namespace=prod -f html
    <table>
    <tr><th>ID</th><th>Value</th></tr>
    <tr><td>/prod/motd</td><td>two<br>lines, &quot;quoted&quot; &lt;b&gt;=cmd()&lt;/b&gt; �[31m 😀</td></tr>
    <tr><td>/prod/port</td><td>8000</td></tr>
    </table>
    "#);
    assert_snapshot!(shown(&place, &["configuration", "get", "--id=/prod/port"], &FORMATS), @r#"
    $ raxsr configuration get --id=/prod/port -f table
    +-------+------------+
    | Field | Value      |
    +====================+
    | ID    | /prod/port |
    | Value | 8000       |
    +-------+------------+

    $ raxsr configuration get --id=/prod/port -f csv
    ID,Value
    /prod/port,8000

    $ raxsr configuration get --id=/prod/port -f json
    {
      "id": "/prod/port",
      "value": "8000"
    }

    $ raxsr configuration get --id=/prod/port -f yaml
    id: /prod/port
    value: '8000'

    $ raxsr configuration get --id=/prod/port -f html
    <table>
    <tr><th>ID</th><th>Value</th></tr>
    <tr><td>/prod/port</td><td>8000</td></tr>
    </table>
    "#);
    assert_snapshot!(shown(&place, &["configuration", "export", "prod"], &["yaml", "json"]), @r#"
    $ raxsr configuration export prod -f yaml
    /prod/motd: "two\nlines, \"quoted\" <b>=cmd()</b> \e[31m 😀"
    /prod/port: '8000'

    $ raxsr configuration export prod -f json
    {
      "/prod/motd": "two\nlines, \"quoted\" <b>=cmd()</b> \u001b[31m 😀",
      "/prod/port": "8000"
    }
    "#);
}

#[test]
fn account_limits() {
    let server = Server::open();
    let registry = format!("--registry={}/v1.0", server.url());
    let limits = |what: &str| {
        shown(&server.place, &["account", what, &registry], &FORMATS)
            .replace(&server.address().to_string(), "HOST")
    };
    assert_snapshot!(limits("resource-limits"), @r#"
    $ raxsr account resource-limits --registry=http://HOST/v1.0 -f table
    +---------------------+-------+
    | Resource            | Limit |
    +=============================+
    | configuration_value |  1000 |
    | service             |   200 |
    +---------------------+-------+

    $ raxsr account resource-limits --registry=http://HOST/v1.0 -f csv
    Resource,Limit
    configuration_value,1000
    service,200

    $ raxsr account resource-limits --registry=http://HOST/v1.0 -f json
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

    $ raxsr account resource-limits --registry=http://HOST/v1.0 -f yaml
    - resource: configuration_value
      limit: 1000
    - resource: service
      limit: 200

    $ raxsr account resource-limits --registry=http://HOST/v1.0 -f html
    <table>
    <tr><th>Resource</th><th>Limit</th></tr>
    <tr><td>configuration_value</td><td>1000</td></tr>
    <tr><td>service</td><td>200</td></tr>
    </table>
    "#);
    assert_snapshot!(limits("rate-limits"), @r#"
    $ raxsr account rate-limits --registry=http://HOST/v1.0 -f table
    +------+------------+------+------------------+
    | Rate | Window     | Used | Limit            |
    +=============================================+
    | /.*  | 24.0 hours |    6 | 9007199254740991 |
    +------+------------+------+------------------+

    $ raxsr account rate-limits --registry=http://HOST/v1.0 -f csv
    Rate,Window,Used,Limit
    /.*,24.0 hours,7,9007199254740991

    $ raxsr account rate-limits --registry=http://HOST/v1.0 -f json
    [
      {
        "rate": "/.*",
        "limit": 9007199254740991,
        "used": 8,
        "window": "24.0 hours"
      }
    ]

    $ raxsr account rate-limits --registry=http://HOST/v1.0 -f yaml
    - rate: /.*
      limit: 9007199254740991
      used: 9
      window: 24.0 hours

    $ raxsr account rate-limits --registry=http://HOST/v1.0 -f html
    <table>
    <tr><th>Rate</th><th>Window</th><th>Used</th><th>Limit</th></tr>
    <tr><td>/.*</td><td>24.0 hours</td><td>10</td><td>9007199254740991</td></tr>
    </table>
    "#);
}
