"""Who may do what: users, groups, shares and links, kept on the volume; one pure function decides every request.

It must never know HTTP beyond its cookies and fields, nor make a system call on the volume except in `store.py` and
`audit.py` (in threads of the pool). Open `access.py` first: everything else only feeds it. A volume without accounts
is open to everyone, as it always was.
"""
