// SPDX-License-Identifier: GPL-2.0-only
/* Control groups, by the files that are open. */

#include <linux/cgroup.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kernfs.h>
#include <linux/magic.h>
#include <linux/sched.h>

#include "helpers.h"

unsigned int sleepy_cgroup_version(const struct file *directory)
{
	if (!S_ISDIR(file_inode(directory)->i_mode))
		return 0;
	switch (directory->f_path.dentry->d_sb->s_magic) {
	case CGROUP_SUPER_MAGIC:
		return 1;
	case CGROUP2_SUPER_MAGIC:
		return 2;
	default:
		return 0;
	}
}

/* A file in a directory, by its name alone. */
struct file *sleepy_open_beside(const struct file *directory, const char *name)
{
	return file_open_root(&directory->f_path, name, O_RDWR | O_NOFOLLOW, 0);
}

u64 sleepy_file_inode(const struct file *file)
{
	return file_inode(file)->i_ino;
}

bool sleepy_same_file(const struct file *one, const struct file *other)
{
	return file_inode(one) == file_inode(other);
}

/* Whether a thread's CPU time is accounted to a group, or below it. */
bool sleepy_cgroup_has(const struct file *directory, struct task_struct *task)
{
#ifdef CONFIG_CGROUP_SCHED
	struct kernfs_node *node = file_inode(directory)->i_private;
	struct cgroup *group;
	bool has = false;

	rcu_read_lock();
	/* The group's node outlives the group, by the file's reference. */
	group = rcu_dereference(*(struct cgroup __rcu **)&node->priv);
	if (group)
		has = cgroup_is_descendant(task_css(task, cpu_cgrp_id)->cgroup,
					   group);
	rcu_read_unlock();
	return has;
#else
	return false;
#endif
}
