# Copyright: the shipshape.deploy founders
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options that say where a visitor pool is, and what it is made of."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  database_url:
    description:
      - The application's database as this machine reaches it, C(postgresql://user:password@host/database) or
        C(sqlite:////directory/file). Give the server's own address. Behind a pooler that gives each transaction another
        session the pool's locks cannot hold.
      - By default the one that O(service) has in O(database_variable), looked up as its containers see it.
    type: str
  service:
    description:
      - The application's service. Its O(database_variable) says where the database is, unless O(database_url) does,
        and its image runs the application's own commands.
      - Required unless O(database_url) is given.
    type: str
  database_variable:
    description:
      - The variable of O(service) that holds the URL.
      - The default is the name that most frameworks look for.
    type: str
    default: DATABASE_URL
  schema:
    description:
      - The application's tables, a mapping of C(users), C(projects) and C(allocations), each with C(table),
        C(columns) and C(constants). What is left out is as in the default, which are the tables of the setup guide's
        Django application. Or the word V(builtin), for applications that have none of this. The pool then makes and
        uses tables of its own, C(shipshape_visitor_user), C(shipshape_visitor_project) and
        C(shipshape_visitor_allocation).
      - C(columns) maps the names that the columns have there to those that they have in the database. Of users C(id),
        C(username), C(password), C(is_superuser), C(is_staff), C(is_active). Of projects C(id), C(owner_id), C(name),
        C(slug). Of allocations C(visitor_number), C(session_key), C(allocation_token), C(allocated_at), C(expires_at),
        C(is_active). C(null) for C(password), C(is_superuser), C(is_staff), C(is_active) or the project's C(name) says
        that the application has none. The user of a slot that drains is made inactive.
      - C(constants) gives values to the columns that must not be null and are none of these, and to C(id) where the
        database does not make one by itself. V(now(\)) is the time, V(uuid(\)) a new one for each row; C({username})
        and C({number}) in a text are replaced. A column of JSON may have a mapping or a list, also as a text; one that
        is an array in PostgreSQL, a list.
      - C(token) of allocations is V(sha256) when the table holds the tokens' SHA-256 in hex, which is the default
        because who reads the table then holds no token; V(plain) when it holds them as they are.
      - All of it is compared with the live database first, and names are quoted wherever they are used.
    type: raw
  user_flag:
    description:
      - A column of users that is true exactly if the slot's directory is there. Empty for none, which is the default,
        because Django's users have none.
    type: str
    default: ''
  workspace_flag:
    description:
      - A column of projects that is true exactly if the slot's workspace is there. Empty for none.
      - The default is that of the setup guide's application.
    type: str
    default: writer_initialized
  size:
    description:
      - How many slots the pool has, at most 1000000.
      - The default is that of the setup guide, good for 500 visitors a day.
    type: int
    default: 32
  prefix:
    description:
      - What the slots' users begin with; their number follows, with at least three digits. Letters of English, digits,
        dot, dash and underscore, a letter or digit first and no digit last, at most 64.
      - The default is that of the setup guide.
    type: str
    default: visitor-
  project:
    description:
      - Name and slug of each slot's project, and the name of its directory. Letters of English, digits, dot, dash and
        underscore, a letter or digit first, at most 100.
      - The default is that of the setup guide.
    type: str
    default: default-project
  data_root:
    description:
      - Directory that holds a directory for each user. All that is made in it gets its owner and its mode.
      - A path on the target, or in the containers of O(data_service). There is no default, because nothing can be
        guessed of it.
      - The containers of O(service) and O(data_service) that run and have it mounted to write show as which users the
        application works there. A slot that none of them may enter, read and write is not counted as allocatable.
    type: str
  data_service:
    description:
      - A service in whose containers O(data_root) is. The volume or bind mount behind it is looked up, so that the
        application's own path can be given.
      - By default O(data_root) is a path on the target.
    type: str
  workspace:
    description:
      - What a slot's project begins with.
    type: dict
    suboptions:
      path:
        description:
          - Its place in the project's directory.
          - The default is that of the setup guide's application.
        type: str
        default: scitex/writer
      marker:
        description:
          - A file or directory in it that is there, and not empty, when the workspace is whole.
          - The default is that of the setup guide's application.
        type: str
        default: 01_manuscript
      template:
        description:
          - What it is a copy of, a directory on the target, or a git repository with exactly one of O(workspace.branch)
            and O(workspace.tag).
          - By default it is nothing but its marker, a directory that is not empty.
        type: str
      branch:
        description:
          - The branch to take, in its newest state each time.
          - None by default, because a tag is what stays the same.
        type: str
      tag:
        description:
          - The tag to take, fetched once.
          - None by default, because a directory needs none.
        type: str
  migrate_command:
    description:
      - Command, as a list of arguments, that makes the application's tables. It is run once, in a container of
        O(service) of its own, when a table is missing.
      - None by default, because only the application knows it. A missing table is an error then.
    type: list
    elements: str
    default: []
"""
