"""What the service says about accounts, in English and Spanish."""

from __future__ import annotations

ACCOUNTS: dict[str, tuple[str, str]] = {
    # --- refusals -----------------------------------------------------------------------------------------------------
    "log_in": ("Log in to see this.", "Inicie sesión para ver esto."),
    "no_access": ("You have no access to this.", "No tiene acceso a esto."),
    "only_read": ("You may read here, but not change anything.", "Aquí puede leer, pero no cambiar nada."),
    "share_inside": (
        "This is a share, or one lies inside; remove the share first.",
        "Esto es un recurso compartido, o contiene uno; quite primero el recurso.",
    ),
    "share_itself": (
        "Only an administrator changes the folder of a share itself.",
        "Solo un administrador cambia la carpeta misma de un recurso compartido.",
    ),
    "hard_link": (
        "This file has a second name, perhaps in another share; only an administrator may read it.",
        "Este archivo tiene un segundo nombre, quizá en otro recurso; solo un administrador puede leerlo.",
    ),
    "bad_login": ("Name or password is wrong.", "El nombre o la contraseña no son correctos."),
    "throttled": (
        "Too many wrong passwords; try again in {seconds} seconds.",
        "Demasiadas contraseñas incorrectas; inténtelo de nuevo en {seconds} segundos.",
    ),
    "admins_only": ("Only administrators may do this.", "Solo los administradores pueden hacer esto."),
    "form_token": (
        "This form belongs to an earlier session; open the page again.",
        "Este formulario pertenece a una sesión anterior; abra la página de nuevo.",
    ),
    "password_length": (
        "A password has at least {min} characters and at most {max} bytes.",
        "Una contraseña tiene al menos {min} caracteres y como mucho {max} bytes.",
    ),
    "passwords_differ": ("The two passwords are not the same.", "Las dos contraseñas no coinciden."),
    "account_name": (
        "“{name}” cannot be a name here: lower-case a to z, digits, “.”, “_” and “-”, a letter first, at most {max}.",
        "«{name}» no sirve de nombre: minúsculas a-z, dígitos, «.», «_» y «-», primero una letra, {max} como máximo.",
    ),
    "account_many": ("There are already {max} of these.", "Ya hay {max}."),
    "account_request": ("This request is not understood: {what}.", "Esta petición no se entiende: {what}."),
    "first_admin": (
        "The first user must be an administrator; from then on everyone has to log in.",
        "El primer usuario debe ser administrador; desde entonces todos tienen que iniciar sesión.",
    ),
    "last_admin": (
        "This is the last administrator; make another one first.",
        "Es el último administrador; nombre antes a otro.",
    ),
    "user_exists": ("There is already a user {name}.", "Ya existe el usuario {name}."),
    "group_exists": ("There is already a group {name}.", "Ya existe el grupo {name}."),
    "share_exists": ("There is already a share {name}.", "Ya existe el recurso {name}."),
    "share_taken": ("This folder is already the share {name}.", "Esta carpeta ya es el recurso {name}."),
    "share_casefold": (
        "Names in the folder above do not distinguish upper and lower case; permissions could be got round there.",
        "Los nombres de la carpeta superior no distinguen mayúsculas y minúsculas; así se podrían eludir los permisos.",
    ),
    "no_accounts": (
        "There are no accounts here yet; add the first user with relevo user add NAME --admin.",
        "Aquí aún no hay cuentas; añada el primer usuario con relevo user add NOMBRE --admin.",
    ),
    "no_user": ("There is no user {name}.", "No existe el usuario {name}."),
    "no_group": ("There is no group {name}.", "No existe el grupo {name}."),
    "no_share": ("There is no share {name}.", "No existe el recurso {name}."),
    "no_link": ("There is no link {id}.", "No existe el enlace {id}."),
    "unsigned": (
        "This order is not signed with the key of this cluster, or is too old.",
        "Esta orden no está firmada con la clave de este clúster, o es demasiado antigua.",
    ),
    "quota_user": (
        "The quota of {name} has {free} left, and this needs {needed}; what lies in the bin counts too.",
        "A la cuota de {name} le quedan {free}, y esto necesita {needed}; también cuenta lo que hay en la papelera.",
    ),
    "quota_share": (
        "The quota of the share {name} has {free} left, and this needs {needed}; what lies in the bin counts too.",
        "A la cuota del recurso {name} le quedan {free}, y esto necesita {needed}; también cuenta lo de la papelera.",
    ),
    "quota_yours": (
        "You use {used} of {limit}; {left} are left.",
        "Usted ocupa {used} de {limit}; quedan {left}.",
    ),
    "quota_share_used": (
        "This share uses {used} of {limit}; {left} are left.",
        "Este recurso ocupa {used} de {limit}; quedan {left}.",
    ),
    # --- pages --------------------------------------------------------------------------------------------------------
    "login": ("Log in", "Iniciar sesión"),
    "user": ("User", "Usuario"),
    "user_name": ("User name", "Nombre de usuario"),
    "password": ("Password", "Contraseña"),
    "logout": ("Log out", "Cerrar sesión"),
    "account": ("My account", "Mi cuenta"),
    "accounts": ("Accounts", "Cuentas"),
    "password_old": ("Present password", "Contraseña actual"),
    "password_new": ("New password", "Contraseña nueva"),
    "password_again": ("New password, again", "Contraseña nueva, otra vez"),
    "password_change": ("Change the password", "Cambiar la contraseña"),
    "done_password": (
        "The password is changed. Other sessions have ended.",
        "La contraseña se ha cambiado. Las demás sesiones han terminado.",
    ),
    "done_account": ("Done, and stored.", "Hecho y guardado."),
}
