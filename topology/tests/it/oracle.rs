//! A batch recount, apart from everything the stages share: plain loops over what was posted.
