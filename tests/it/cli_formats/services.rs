use insta::assert_snapshot;

use super::{FORMATS, shown, with_services};

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
